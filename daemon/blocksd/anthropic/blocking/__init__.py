"""The memory tool for blocking code, made of that for asyncio by `tests/generate_client.py`."""
