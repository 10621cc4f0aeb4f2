"""Logs and metrics of one replica."""
