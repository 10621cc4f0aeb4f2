"""What brings the registry up elsewhere: image, compose files, and the test of both."""
