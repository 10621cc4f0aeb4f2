"""Output of the commands: tables, JSON, YAML and names, safe for a terminal."""
