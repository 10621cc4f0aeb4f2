"""Formats and endpoints of other products; may use everything below `main`, and nothing else imports it."""
