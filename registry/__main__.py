"""`python -m registry`, and the command `mcp-mesh-registry`."""

from registry.cli.main import main

if __name__ == "__main__":
    main()
