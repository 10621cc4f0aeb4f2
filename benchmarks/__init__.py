"""How fast the registry is: real servers, checked answers, requests per CPU-second. See README.md."""
