"""Watches of agents: begin at a version, deliver each change, and can resume on any replica."""
