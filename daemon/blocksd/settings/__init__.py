"""What is configured, from where, and where a running daemon is found."""
