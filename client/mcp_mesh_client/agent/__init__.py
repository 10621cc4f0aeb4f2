"""The agent of this process: its declarations, registration and server, and its calls of other agents."""
