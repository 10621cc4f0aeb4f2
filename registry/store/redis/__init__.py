"""Connections to Redis: finding the primary, pipelines, batches, retries and translated errors."""
