"""The HTTP proxy that forwards calls to registered agents."""
