"""The types of the client, as the type checker of a user sees them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.source_code import ROOT

_PYRIGHT = Path(sys.executable).with_name("basedpyright")


def test_each_public_symbol_has_a_known_type(tmp_path: Path) -> None:
    """Pyright calls the package complete: no type that another checker would have to infer."""
    if not _PYRIGHT.exists():
        pytest.skip("basedpyright is not installed; there are wheels for the common platforms only")
    environment = os.environ | {"PYTHONPATH": str(_site_packages(tmp_path))}
    command = [str(_PYRIGHT), "--pythonpath", sys.executable, "--verifytypes", "mcp_mesh_client", "--ignoreexternal"]
    done = subprocess.run(
        [*command, "--outputjson"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"basedpyright does not run here: {done.stderr[-500:]}")
    result = json.loads(done.stdout)
    problems = {
        f"{symbol['name']}: {problem['message']}"
        for symbol in result["typeCompleteness"]["symbols"]
        for problem in symbol["diagnostics"]
        if problem["severity"] == "error"
    }

    assert problems == set()
    assert result["typeCompleteness"]["completenessScore"] == 1


def _site_packages(folder: Path) -> Path:
    """Return a folder with the package as a wheel installs it; Pyright does not resolve an editable install."""
    packages = folder / "site-packages"
    packages.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        (packages / installed.name).symlink_to(installed)
    shutil.copytree(ROOT / "client" / "mcp_mesh_client", packages / "mcp_mesh_client")
    return packages
