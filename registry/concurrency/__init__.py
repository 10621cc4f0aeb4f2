"""Helpers for asyncio tasks, timeouts and caches; they contain no business rules."""
