"""What a client sends and receives, decided without any input or output."""
