"""asyncio building blocks without business rules."""
