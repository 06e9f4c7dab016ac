"""The client that agents and operators program against, blocking and for asyncio."""
