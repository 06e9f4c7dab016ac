"""The process around the core: threads, signals, control socket and the embedded server."""
