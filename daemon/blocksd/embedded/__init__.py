"""The Redis-compatible server that the daemon starts when none is configured."""
