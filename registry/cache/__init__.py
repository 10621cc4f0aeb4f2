"""The in-memory copy of all agents, kept up to date from the change log."""
