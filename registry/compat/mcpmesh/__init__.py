"""Formats, policies and endpoints for the mcp-mesh SDK, meshctl and its dashboard."""
