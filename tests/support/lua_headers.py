"""The headers of the Lua scripts: keys, arguments, replies, writes and events."""

import re
from dataclasses import dataclass

from registry.store.scripts import lua_folder

LUA_FOLDER = lua_folder()
SCRIPTS = sorted(path.stem for path in LUA_FOLDER.glob("*.lua"))
INCLUDES = sorted(path.stem for path in (LUA_FOLDER / "include").glob("*.lua"))

_SECTIONS = ("KEYS", "ARGV", "REPLY", "WRITES", "EMITS", "COST")
_SECTION_START = re.compile(rf"^  ({'|'.join(_SECTIONS)}) +", re.MULTILINE)
# Entries start in column 10; two blanks separate an entry from its explanation.
_ENTRY = re.compile(r"^(\S.*?)(?:  +(.*))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Key:
    """One line of KEYS: the name in the script, the type in Redis, and the pattern of the key."""

    name: str
    kind: str
    pattern: str


@dataclass(frozen=True, slots=True)
class ScriptHeader:
    """One script's header. `replies` are its formats, such as `created <version>`; `body` is the Lua below it."""

    name: str
    summary: str
    flags: tuple[str, ...]
    keys: tuple[Key, ...]
    argument_names: tuple[str, ...]
    replies: tuple[str, ...]
    writes: tuple[str, ...]
    emits: tuple[tuple[str, str], ...]
    cost: str
    body: str

    @property
    def reply_words(self) -> frozenset[str]:
        """Every word that a reply can contain."""
        forms = (re.sub(r"<[^>]*>…?", "", form) for form in self.replies)
        return frozenset(word for form in forms for word in form.split())


def read_header(name: str) -> ScriptHeader:
    """Read the header of `lua/<name>.lua`. Raises AssertionError if its format is wrong."""
    text = (LUA_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    whole = re.fullmatch(rf"#!lua(?: flags=(\S+))?\n--\[\[ {name} — (.+?)\n\n(.*?)\n\]\]\n(.*)", text, re.DOTALL)
    assert whole, f"lua/{name}.lua does not begin with the shebang and `--[[ {name} — <what it does>`"
    flags, summary, block, body = whole.groups()
    sections = _split_sections(block)
    assert tuple(sections) == _SECTIONS, f"lua/{name}.lua: sections are {tuple(sections)}, expected {_SECTIONS}"
    return ScriptHeader(
        name=name,
        summary=summary,
        flags=tuple(flags.split(",")) if flags else (),
        keys=tuple(_parse_key(name, line) for line in sections["KEYS"].splitlines()),
        argument_names=_entry_names_or_none(sections["ARGV"]),
        replies=_entry_names(sections["REPLY"]),
        writes=tuple(sections["WRITES"].split()),
        emits=_parse_events(sections["EMITS"]),
        cost=sections["COST"],
        body=body,
    )


def read_headers() -> dict[str, ScriptHeader]:
    """Read the headers of all scripts, by name."""
    return {name: read_header(name) for name in SCRIPTS}


def read_include(name: str) -> str:
    """Return the text of one include."""
    return (LUA_FOLDER / "include" / f"{name}.lua").read_text(encoding="utf-8")


def _split_sections(block: str) -> dict[str, str]:
    """Return the text of each section by its name, without its indentation."""
    found = list(_SECTION_START.finditer(block))
    ends = [match.start() for match in found[1:]] + [len(block)]
    lines = {match[1]: block[match.end() : end].rstrip("\n") for match, end in zip(found, ends, strict=True)}
    return {name: re.sub(r"^ {9}", "", text, flags=re.MULTILINE) for name, text in lines.items()}


def _parse_key(script: str, line: str) -> Key:
    found = re.fullmatch(r"(\w+…?) +(string|hash|list|zset|stream) +(\{mesh\}:\S+?)(?:, .*)?", line)
    assert found, f"lua/{script}.lua: a line of KEYS is not `name  type  {{mesh}}:key`: {line!r}"
    return Key(*found.groups())


def _entry_names(section: str) -> tuple[str, ...]:
    return tuple(match[1] for match in _ENTRY.finditer(section))


def _entry_names_or_none(section: str) -> tuple[str, ...]:
    return tuple(name for name in _entry_names(section) if name != "none")


def _parse_events(section: str) -> tuple[tuple[str, str], ...]:
    """Parse `kind reason | … | nothing`."""
    events = []
    for event in section.split(" | "):
        kind, _, reason = event.partition(" ")
        if kind != "nothing":
            events.append((kind, reason))
    return tuple(events)
