"""Requests, replies and changes as a client sends and receives them, decided without any input or output."""
