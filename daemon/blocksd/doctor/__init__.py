"""Checks of the machine, the folder and the Redis server."""
