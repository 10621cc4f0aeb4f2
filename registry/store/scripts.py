"""Loads the Lua scripts, inserts their includes, binds arguments by their names, and splits long ones."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from registry.errors import StartupError

Item = TypeVar("Item")
Argument = bytes | str | int
ArgumentValue = Argument | Sequence[Argument]
Command = tuple[Argument, ...]

MAX_AGENTS_PER_CALL = 200
"""Maximum number of agents in one script call; the scripts reject more."""

_INCLUDE = re.compile(r"^--@include (\w+)\n", re.MULTILINE)
_LUA_COMMAND = re.compile(r"redis\.p?call\(\s*'(\w+)'")
_HEADER = re.compile(
    r"--\[\[ (?P<name>\w+) — .*?\n(?P<keys>  KEYS .*?\n)(?P<args>  ARGV .*?\n)(?P<replies>  REPLY .*?\n)  WRITES ",
    re.DOTALL,
)
# Every entry of a header starts in column 9; explanations start further right.
_ENTRY = re.compile(r"^(?:  [A-Z]{4,5} {2,3}|         )(\w+…?)(?=  |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script: its text with includes, its digest, and the names of KEYS and ARGV in its header, in order.

    A name that ends in `…` is the last one and takes a sequence of values.
    """

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    args: tuple[str, ...]

    def command_at(self, line: int) -> str | None:
        """Return the first Redis command that the script calls at or after a line, counted from 1."""
        found = _LUA_COMMAND.search(self.text.split("\n", line - 1)[-1]) if line > 0 else None
        return found and found[1]

    def call(self, keys: Mapping[str, ArgumentValue], args: Mapping[str, ArgumentValue]) -> "ScriptCall":
        """Return a call of the script with keys and arguments bound by name. Raises KeyError for a missing name."""
        bound_keys = _bind(self.keys, keys)
        return ScriptCall(self, (len(bound_keys), *bound_keys, *_bind(self.args, args)))


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a Lua script with its keys and arguments, ready to send."""

    script: Script
    arguments: Command

    @property
    def evalsha(self) -> Command:
        """The EVALSHA command with the script's digest, which is sent first."""
        return ("EVALSHA", self.script.sha, *self.arguments)

    @property
    def eval(self) -> Command:
        """The EVAL command with the script's text, for a server that does not have the script."""
        return ("EVAL", self.script.text, *self.arguments)


def _bind(names: tuple[str, ...], values: Mapping[str, Any]) -> list[Argument]:
    # Without a check of each value: a registration has 21.
    if names and names[-1].endswith("…"):
        return [*_bind(names[:-1], values), *values[names[-1]]]
    return [values[name] for name in names]


def lua_folder() -> Path:
    """Return the folder of the Lua scripts: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "lua", package.parent / "lua"):
        if (folder / "register.lua").is_file():
            return folder
    raise StartupError(f"The Lua scripts of {package} are missing; reinstall mcp-mesh-registry")


def inline_includes(folder: Path, name: str) -> str:
    """Return a script with each included file inserted once, before its first use.

    Raises StartupError for a missing include or a cycle; the message has the path of includes.
    """
    inserted: list[str] = []

    def insert(path: Path, parents: tuple[Path, ...]) -> str:
        path_text = " -> ".join(str(step.relative_to(folder)) for step in (*parents, path))
        if path in parents:
            raise StartupError(f"Lua include cycle: {path_text}")
        if not path.is_file():
            raise StartupError(f"Lua file not found: {path_text}")

        def replace(found: re.Match[str]) -> str:
            include = found.group(1)
            if include in inserted:
                return ""
            text = insert(folder / "include" / f"{include}.lua", (*parents, path))
            inserted.append(include)
            return text

        return _INCLUDE.sub(replace, path.read_text(encoding="utf-8"))

    return insert(folder / f"{name}.lua", ())


def read_script(folder: Path, name: str, *, shebang: bool = True) -> Script:
    """Read one Lua script; omit its first line if the server does not support `#!lua` lines."""
    text = inline_includes(folder, name)
    header = _HEADER.search(text)
    if header is None or header["name"] != name or not text.startswith("#!lua"):
        raise StartupError(f"lua/{name}.lua does not begin with `#!lua` and the header described in lua/README.md")
    if not shebang:
        text = text.partition("\n")[2]
    return Script(
        name=name,
        text=text,
        sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        keys=_entry_names(header["keys"]),
        args=_entry_names(header["args"]),
    )


def _entry_names(block: str) -> tuple[str, ...]:
    return tuple(name for name in _ENTRY.findall(block) if name != "none")


@cache
def load_scripts(*, shebang: bool = True) -> Mapping[str, Script]:
    """Read all Lua scripts, once per process. Raises StartupError for an invalid header or include."""
    folder = lua_folder()
    return {path.stem: read_script(folder, path.stem, shebang=shebang) for path in sorted(folder.glob("*.lua"))}


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Return slices of a sequence with at most `size` items each; no slice for an empty sequence."""
    return (items[start : start + size] for start in range(0, len(items), size))
