"""`python -m examples.demo`: several replicas on one store, and many agents that register at once."""
