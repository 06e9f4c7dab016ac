"""Letta's routes for blocks, agents and their memory."""
