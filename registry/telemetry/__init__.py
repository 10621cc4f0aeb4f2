"""What the registry tells about itself to the people who run it."""

from registry.telemetry.logs import configure_logs, get_logger

__all__ = ["configure_logs", "get_logger"]
