"""The Redis server that the registry starts as a subprocess."""
