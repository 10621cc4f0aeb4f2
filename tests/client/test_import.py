"""Importing the client imports only the standard library, and little of it."""

import json
import subprocess
import sys

# The modules of the standard library that the client imports, with those that they import; 155 on Python 3.11.
_MAX_MODULES = 190
_IMPORT = """
import json, sys
import mcp_mesh_client
ours = ("mcp_mesh_client", "sitecustomize", "distutils")
print(json.dumps([name for name in sys.modules if not name.startswith(ours)]))
"""


def test_importing_the_client_imports_only_a_part_of_the_standard_library() -> None:
    """The HTTP library is imported by the first call; the server is never imported.

    `python -m benchmarks import_time` measures the time.
    """
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)

    tops = {name.partition(".")[0] for name in modules}
    assert {top for top in tops if not top.startswith("_")} - sys.stdlib_module_names == set()
    assert len(modules) <= _MAX_MODULES
