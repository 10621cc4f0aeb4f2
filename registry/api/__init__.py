"""HTTP and MCP endpoints; no business rules."""
