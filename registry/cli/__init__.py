"""The command line: runs a replica, maintains a mesh, and calls a registry."""
