"""Checks of the machine, the folder and the Redis server: what a daemon depends on and cannot report itself."""
