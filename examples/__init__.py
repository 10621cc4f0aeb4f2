"""Programs that use the registry: two agents, sample agents of the Compose stack, and the demo."""
