"""Generates mcp_mesh_client/sync_client.py from client.py: the methods of RegistryClient, to call without `await`.

`make generate` runs it, and so does the build of a wheel (hatch_build.py).
"""

import ast
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent / "mcp_mesh_client"
_MODULE_DOCSTRING = '"""The synchronous client. Generated from client.py by generate_sync.py; do not edit."""'
_CLASS_DOCSTRING = '''"""RegistryClient for code without `await`: in any thread, also inside a running event loop.

    Each method runs the method of RegistryClient on an event loop in a thread that belongs to this client.
    """'''
_LINE_LENGTH = 120
# Written by hand in sync_client_support.py: methods, and the synchronous forms of objects that methods return.
_SESSION_METHODS = frozenset({"close", "state"})
_SYNC_FORMS = {"Watch": "SyncWatch", "KeepAlive": "SyncKeepAlive"}


def generate(source: str) -> str:
    """Return the source of sync_client.py for the source of client.py."""
    tree = ast.parse(source)
    client = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "RegistryClient")
    methods = [
        _method(source, node)
        for node in client.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.name not in _SESSION_METHODS
    ]
    body = "\n\n".join(methods)
    text = f"class SyncRegistryClient(SyncSession):\n    {_CLASS_DOCSTRING}\n\n{body}\n"
    return f"{_MODULE_DOCSTRING}\n\n{_imports(tree, text)}\n\n\n{text}"


def _method(source: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a method with the signature and docstring of the asynchronous one."""
    lines = source.splitlines()
    docstring = node.body[0]
    head = "\n".join(lines[node.lineno - 1 : docstring.lineno - 1]).replace("async def ", "def ", 1)
    doc = "\n".join(lines[docstring.lineno - 1 : docstring.end_lineno]).replace("async with", "with")
    arguments = [each.arg for each in node.args.args[1:]]
    arguments += [f"{each.arg}={each.arg}" for each in node.args.kwonlyargs]
    arguments += [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    call = f"self._client.{node.name}({', '.join(arguments)})"
    if isinstance(node, ast.AsyncFunctionDef):
        result = f"self._thread.run({call})"
    else:
        # Making the object sends nothing.
        returned = ast.unparse(node.returns) if node.returns else ""
        head = head.replace(f"-> {returned}", f"-> {_SYNC_FORMS[returned]}")
        result = f"{_SYNC_FORMS[returned]}({call}, self._thread)"
    return f"{head}\n{doc}\n{_return_statement(result, f'self._client.{node.name}', arguments)}"


def _return_statement(result: str, callee: str, arguments: list[str]) -> str:
    """Return the statement on one line if it fits, otherwise with one argument of the inner call a line."""
    line = f"        return {result}"
    if len(line) <= _LINE_LENGTH:
        return line
    before, after = result.split(f"{callee}({', '.join(arguments)})")
    broken = "".join(f"                {each},\n" for each in arguments)
    rest = f"            {after.removeprefix(', ').removesuffix(')')},\n" if after.startswith(", ") else ""
    return f"        return {before}\n            {callee}(\n{broken}            ),\n{rest}        )"


def _imports(tree: ast.Module, text: str) -> str:
    """Return the imports of client.py whose names the generated class uses, and the import of its base class."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    standard, own = [], [_import("mcp_mesh_client.sync_client_support", ["SyncKeepAlive", "SyncSession", "SyncWatch"])]
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        names = [each.name for each in node.names if each.name in used]
        if names:
            (own if node.module.startswith("mcp_mesh_client.") else standard).append(_import(node.module, names))
    return "\n".join(sorted(standard)) + "\n\n" + "\n".join(sorted(own, key=lambda line: line.split()[1]))


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _LINE_LENGTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def main(arguments: list[str]) -> int:
    """Write sync_client.py; with `--check` only compare, and return 1 if it is not current."""
    target = _PACKAGE / "sync_client.py"
    text = generate((_PACKAGE / "client.py").read_text(encoding="utf-8"))
    current = target.exists() and target.read_text(encoding="utf-8") == text
    if "--check" in arguments:
        return int(not current)
    if not current:
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
