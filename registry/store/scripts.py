"""Find, flatten, hash and call the Lua scripts. Their headers are read, so that a position is never written twice."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from registry.errors import StartupError

Argument = bytes | str | int
ArgumentValue = Argument | Sequence[Argument]
Command = tuple[Argument, ...]

MAX_AGENTS_PER_CALL = 200
"""Maximum number of agents in one script call; the scripts reject more."""

_INCLUDE = re.compile(r"^--@include (\w+)\n", re.MULTILINE)
_HEADER = re.compile(
    r"--\[\[ (?P<name>\w+) — .*?\n(?P<keys>  KEYS .*?\n)(?P<args>  ARGV .*?\n)(?P<replies>  REPLY .*?\n)  WRITES ",
    re.DOTALL,
)
# Every entry of a header begins in column 9; what explains it begins further right.
_ENTRY = re.compile(r"^(?:  [A-Z]{4,5} {2,3}|         )(\w+…?)(?=  |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its flattened text, its digest, and the names its header gives to KEYS and ARGV, in order.

    A name that ends in `…` takes the rest: a sequence of values. It stands last.
    """

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    args: tuple[str, ...]

    def call(self, keys: Mapping[str, ArgumentValue], args: Mapping[str, ArgumentValue]) -> "ScriptCall":
        """Bind keys and arguments by name; a missing name is a KeyError here, not a wrong position in Redis."""
        bound_keys = _bind(self.keys, keys)
        return ScriptCall(self, (len(bound_keys), *bound_keys, *_bind(self.args, args)))


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One script call, ready to be sent."""

    script: Script
    arguments: Command

    @property
    def evalsha(self) -> Command:
        """The command that names the script by its digest: what is sent first."""
        return ("EVALSHA", self.script.sha, *self.arguments)

    @property
    def eval(self) -> Command:
        """The command that carries the whole script, for a server that does not know the digest."""
        return ("EVAL", self.script.text, *self.arguments)


def _bind(names: tuple[str, ...], values: Mapping[str, ArgumentValue]) -> list[Argument]:
    bound: list[Argument] = []
    for name in names:
        value = values[name]
        if isinstance(value, (bytes, str, int)):
            bound.append(value)
        else:
            bound.extend(value)
    return bound


def lua_folder() -> Path:
    """Return where the Lua lies: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "lua", package.parent / "lua"):
        if (folder / "register.lua").is_file():
            return folder
    raise StartupError(f"The Lua scripts are missing beside {package}; install mcp-mesh-registry again")


def inline_includes(folder: Path, name: str) -> str:
    """Return the script with its includes in place, each once, in the order of need.

    Raises StartupError for a missing include or a cycle, naming the chain that led there.
    """
    seen: list[str] = []

    def insert(path: Path, chain: tuple[Path, ...]) -> str:
        trace = " -> ".join(str(step.relative_to(folder)) for step in (*chain, path))
        if path in chain:
            raise StartupError(f"Lua includes itself: {trace}")
        if not path.is_file():
            raise StartupError(f"Lua file is missing: {trace}")

        def replace(found: re.Match[str]) -> str:
            wanted = found.group(1)
            if wanted in seen:
                return ""
            text = insert(folder / "include" / f"{wanted}.lua", (*chain, path))
            seen.append(wanted)
            return text

        return _INCLUDE.sub(replace, path.read_text(encoding="utf-8"))

    return insert(folder / f"{name}.lua", ())


def read_script(folder: Path, name: str, *, shebang: bool = True) -> Script:
    """Read one script. Without `shebang` its first line is dropped, for an engine that does not know it."""
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
    """Read every script once; a bad header or include stops the start."""
    folder = lua_folder()
    return {path.stem: read_script(folder, path.stem, shebang=shebang) for path in sorted(folder.glob("*.lua"))}
