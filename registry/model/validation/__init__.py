"""Decoding of JSON bodies within limits, and errors that name every violation of a schema."""
