"""The Redis server that the registry starts itself."""
