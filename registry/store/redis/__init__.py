"""Connections to Redis: find the primary, pipeline commands, batch, retry, translate errors."""
