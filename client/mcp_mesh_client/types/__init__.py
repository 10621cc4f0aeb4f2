"""TypedDicts for the responses of the registry."""
