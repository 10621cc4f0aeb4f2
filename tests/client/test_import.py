"""Importing the client is cheap, and needs nothing but Python until it calls."""

import subprocess
import sys

import pytest
from mcp_mesh_client import HttpLibraryMissing, RegistryClient

# Milliseconds of CPU, the best of a few: what else the machine does is none of it.
MOST = 150
IMPORT = """
import sys, time
began = time.process_time()
import mcp_mesh_client
took = (time.process_time() - began) * 1000
names = {name for name in sys.modules if not name.startswith(('mcp_mesh_client', '_', 'sitecustomize', 'distutils'))}
print(took, sorted(names - {name for name in names if name.partition('.')[0] in sys.stdlib_module_names}))
"""


def run(code: str) -> str:
    """Run code in a new interpreter that loads nothing by itself; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_client_is_cheap_and_imports_nothing_else() -> None:
    """Neither the HTTP library nor any room of the server."""
    lines = [run(IMPORT) for _ in range(3)]

    assert {line.partition(" ")[2] for line in lines} == {"['registry']"}
    assert min(float(line.partition(" ")[0]) for line in lines) <= MOST


async def test_without_the_http_library_the_first_call_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing and making a client works."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    client = RegistryClient("http://127.0.0.1:9")

    with pytest.raises(ImportError, match=r"pip install 'mcp-mesh-registry\[client\]'") as missing:
        await client.agents()

    assert isinstance(missing.value, HttpLibraryMissing)
