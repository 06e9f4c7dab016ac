"""The MCP server: an agent's memory as tools, resources and a prompt for MCP clients, over stdio and over HTTP."""
