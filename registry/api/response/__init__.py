"""Construction, compression and sending of HTTP responses."""
