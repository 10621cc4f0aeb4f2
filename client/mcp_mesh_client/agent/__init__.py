"""The agent of this process: its declarations, its registration, its server, and calls of other agents."""
