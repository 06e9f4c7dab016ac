"""blocksd: memory blocks of AI agents as plain files, mirrored into Redis and announced on every change."""
