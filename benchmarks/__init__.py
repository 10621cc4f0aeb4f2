"""Benchmarks: real servers, checked responses, requests per CPU-second. See README.md."""
