"""mcp-mesh-registry: MCP agents register, send heartbeats and discover each other."""

__version__ = "0.1.0"
