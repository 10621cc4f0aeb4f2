"""Encodings of the model: agents, watch events and backups."""
