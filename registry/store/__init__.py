"""Everything that the registry stores in Redis."""
