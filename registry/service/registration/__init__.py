"""Registration: validate an agent, store it, and resolve its dependencies."""
