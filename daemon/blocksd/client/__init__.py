"""The client that agents and operators program against: for asyncio by hand, and made of that, in `blocking`, for blocking code."""
