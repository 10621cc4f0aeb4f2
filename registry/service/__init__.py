"""Business rules: registration, discovery, watch, liveness, dependency resolution."""
