"""Liveness: heartbeats, draining, leader election, and the sweep that degrades and expires agents."""
