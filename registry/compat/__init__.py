"""Formats and endpoints of other products; only the module `main` imports this package."""
