"""A directory for everything that a command leaves behind, should it leave anything."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a short path, so that the embedded store's socket fits into it too."""
    made = Path(tempfile.mkdtemp(prefix="mesh-run-", dir="/tmp"))
    yield made
    shutil.rmtree(made)
