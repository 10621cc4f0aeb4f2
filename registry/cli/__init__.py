"""The command line `mcp-mesh-registry`: start a registry, call one, maintain its data."""
