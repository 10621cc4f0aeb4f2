"""The formats of a registration: its fields, their rules and their parsers."""
