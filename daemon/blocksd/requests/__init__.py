"""What actors ask for: protocol, queue, permissions and operations."""
