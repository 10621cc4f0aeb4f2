"""Resolution of dependencies: matches, ranks and chooses providers, and encodes and explains the result."""
