"""Logs and metrics of one replica."""

from registry.telemetry.logs import configure_logs, get_logger

__all__ = ["configure_logs", "get_logger"]
