"""How the published mesh clients speak: their forms in, the same services, their forms out."""
