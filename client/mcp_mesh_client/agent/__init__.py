"""The agent that a process is: what it declares, how it lives in the mesh, and how it calls and is called."""
