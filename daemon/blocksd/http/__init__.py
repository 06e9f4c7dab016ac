"""The gateway: Letta's HTTP routes over the mirror and the inboxes, and who may use them."""
