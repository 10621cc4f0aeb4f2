"""mcp-mesh-registry: where MCP agents announce themselves, stay alive and find each other."""

__version__ = "0.1.0"
