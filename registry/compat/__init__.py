"""Formats and endpoints of other products; of the other packages only `main` imports it."""
