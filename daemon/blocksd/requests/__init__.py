"""Requests of actors: protocol, queue, permissions and operations."""
