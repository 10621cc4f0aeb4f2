"""Construction of responses."""
