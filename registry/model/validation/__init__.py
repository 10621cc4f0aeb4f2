"""JSON bodies and their errors: bounded decoding, and every violation of a schema."""
