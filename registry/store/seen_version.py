"""The highest resource version that this replica has seen: a store with a lower one has lost data."""


class SeenVersion:
    """The highest resource version that this replica has read from Redis or created.

    The scripts that assign versions receive it. If Redis lost data, or was replaced by a server with less, they
    continue above it, so that no version is used twice.
    """

    def __init__(self) -> None:
        self.version = 0

    def raise_to(self, version: int) -> None:
        """Record a version that Redis returned."""
        self.version = max(self.version, version)
