"""Memory for coding assistants: rendered files, hooks, and configurations of their MCP clients."""
