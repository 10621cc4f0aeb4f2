"""Settings of the registry: read once from the environment, typed and immutable."""
