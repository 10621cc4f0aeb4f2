"""The proxy that forwards calls to registered agents."""
