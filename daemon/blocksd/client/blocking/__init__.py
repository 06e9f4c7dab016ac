"""The client for blocking code. Each module is made of its asyncio twin by tests/generate_client.py."""
