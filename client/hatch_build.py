"""The build hook: generates sync_client.py before hatchling builds a wheel, an sdist or an editable install."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateSyncClient(BuildHookInterface[Any]):
    """Runs generate_sync.py, which is in the same folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface of hatchling
        """Write sync_client.py."""
        runpy.run_path(str(Path(self.root) / "generate_sync.py"))["main"]([])
