"""The registry's MCP tools, as POST routes and as an MCP server."""
