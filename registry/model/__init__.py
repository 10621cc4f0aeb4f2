"""Immutable data types and their JSON encodings; no I/O."""
