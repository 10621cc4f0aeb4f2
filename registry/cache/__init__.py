"""In-memory copy of all agents, fed from the change log."""
