"""Settings: read once from the environment, typed, frozen."""
