"""Command line: run a replica, maintain a mesh, call a registry."""
