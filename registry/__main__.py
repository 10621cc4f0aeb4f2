"""`python -m registry`, and the command `mcp-mesh-registry`."""

from registry.command import main

if __name__ == "__main__":
    main()
