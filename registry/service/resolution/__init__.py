"""Resolution of dependencies: match, rank, choose, encode and explain."""
