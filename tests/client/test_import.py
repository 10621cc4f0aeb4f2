"""Importing the client is cheap and imports only the standard library."""

import subprocess
import sys

# CPU time, the minimum of several runs, so that other processes on the machine do not count.
_MAX_IMPORT_MS = 150
_IMPORT = """
import sys, time
began = time.process_time()
import mcp_mesh_client
took = (time.process_time() - began) * 1000
names = {name for name in sys.modules if not name.startswith(('mcp_mesh_client', '_', 'sitecustomize', 'distutils'))}
print(took, sorted(names - {name for name in names if name.partition('.')[0] in sys.stdlib_module_names}))
"""


def run(code: str) -> str:
    """Run code in a new interpreter and return its output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_client_is_cheap_and_imports_only_the_standard_library() -> None:
    """The HTTP library is imported by the first call; the server is never imported."""
    lines = [run(_IMPORT) for _ in range(3)]

    assert {line.partition(" ")[2] for line in lines} == {"[]"}
    assert min(float(line.partition(" ")[0]) for line in lines) <= _MAX_IMPORT_MS
