"""The headers of the scripts match their Lua, their callers and lua/README.md."""

import ast
import re
from pathlib import Path

import pytest

from registry.store.keys import Keys
from registry.store.scripts import load_scripts
from tests.support.lua_headers import INCLUDES, LUA_FOLDER, SCRIPTS, ScriptHeader, read_headers, read_include
from tests.support.source_code import PACKAGE, parse_file

KEYS = Keys("mesh")

# A full Redis rejects new agents only.
NEEDS_MEMORY = {"register", "restore"}

WRITE = re.compile(
    r"redis\.p?call\('(DEL|EXPIRE|HDEL|HINCRBY|HMSET|HSET|HSETNX|INCR|INCRBY|LPUSH|LTRIM|PEXPIRE|SADD|SET|SREM|UNLINK|XADD|XDEL|"
    r"XTRIM|ZADD|ZINCRBY|ZREM)', ([\w.]+)"
)
# The names of local variables for agents' keys.
AGENT_KEYS = {"key", "agent", "agent_key", "agent_keys"}


def names(header: ScriptHeader, *, rest: bool) -> tuple[str, ...]:
    """Return the names of the single keys, or of all."""
    return tuple(key.name for key in header.keys if rest or not key.name.endswith("…"))


def unpacked(body: str, source: str) -> tuple[str, ...]:
    """Return the local names of KEYS or ARGV, in order."""
    found = re.findall(rf"^local ([\w, ]+) = unpack\({source}\)$", body, re.MULTILINE)
    assert len(found) <= 1
    return tuple(found[0].split(", ")) if found else ()


def code(body: str) -> str:
    """Return the Lua without its comments."""
    return re.sub(r"--(?!\[\[).*", "", body)


@pytest.fixture(params=SCRIPTS)
def header(request: pytest.FixtureRequest) -> ScriptHeader:
    """The header of each script."""
    return read_headers()[request.param]


def test_the_keys_are_those_of_the_header(header: ScriptHeader) -> None:
    """Same names and order; those with `…` are accessed by position."""
    assert unpacked(header.body, "KEYS") == names(header, rest=False)


def test_the_arguments_are_those_of_the_header(header: ScriptHeader) -> None:
    """Same names and order; those with `…` are accessed by position."""
    assert unpacked(header.body, "ARGV") == tuple(name for name in header.argument_names if not name.endswith("…"))


def test_a_name_with_an_ellipsis_is_last(header: ScriptHeader) -> None:
    """It takes all remaining values."""
    for taken in (names(header, rest=True), header.argument_names):
        assert not any(name.endswith("…") for name in taken[:-1])


def test_the_number_of_fixed_keys_is_right(header: ScriptHeader) -> None:
    """In scripts with a variable number of keys."""
    for number, less in re.findall(r"local fixed, count = (\d+), #KEYS - (\d+)", header.body):
        assert int(number) == int(less) == len(names(header, rest=False))


def test_the_loader_reads_the_same_header(header: ScriptHeader) -> None:
    """The product and the tests have separate parsers."""
    script = load_scripts()[header.name]

    assert (script.keys, script.args) == (names(header, rest=True), header.argument_names)


def test_each_key_is_used(header: ScriptHeader) -> None:
    """Each declared key is accessed."""
    below = re.sub(r"^local .* = unpack\(.*\)$", "", code(header.body), flags=re.MULTILINE)

    assert {name for name in names(header, rest=False) if not re.search(rf"\b{name}\b", below)} == set()


def test_each_argument_is_used(header: ScriptHeader) -> None:
    """Each declared argument is read."""
    below = re.sub(r"^local .* = unpack\(.*\)$", "", code(header.body), flags=re.MULTILINE)
    fixed = [name for name in header.argument_names if not name.endswith("…")]

    assert {name for name in fixed if not re.search(rf"\b{name}\b", below)} == set()


def test_the_patterns_are_those_of_the_store(header: ScriptHeader) -> None:
    """Only store/keys.py builds keys."""
    for key in header.keys:
        own = KEYS.resolutions("<id>") if key.name == "resolutions" else KEYS.agent("<id>")
        expected = KEYS.shared.get(key.name, own).decode()
        assert key.pattern == expected


def test_a_key_has_one_type_in_all_headers() -> None:
    """Same pattern, same type."""
    kinds: dict[str, set[str]] = {}
    for header in read_headers().values():
        for key in header.keys:
            kinds.setdefault(key.pattern, set()).add(key.kind)

    assert {pattern for pattern, found in kinds.items() if len(found) > 1} == set()


def test_the_flags_let_existing_agents_continue(header: ScriptHeader) -> None:
    """Only scripts that add agents are rejected when memory is full."""
    assert header.flags == (() if header.name in NEEDS_MEMORY else ("allow-oom",))


def test_visible_writes_are_in_writes(header: ScriptHeader) -> None:
    """As far as a regular expression finds them; the tables of tests/lua check that WRITES is exact."""
    seen = {target for _, target in WRITE.findall(code(header.body))}

    assert {_key_name(target) for target in seen} <= {_key_name(name) for name in header.writes}
    assert set(header.writes) <= {name.rstrip("…") for name in names(header, rest=True)}


def test_a_script_that_logs_declares_it(header: ScriptHeader) -> None:
    """A script that includes `append_change` or `begin_timeline` writes version and log, and emits something."""
    includes = set(re.findall(r"^--@include (\w+)$", header.body, re.MULTILINE))
    logs = bool({"begin_timeline", "append_change"} & includes)

    assert bool(header.emits) == logs
    assert {"version", "log"} <= set(header.writes) or not logs


def test_each_include_is_used(header: ScriptHeader) -> None:
    """Each include is called."""
    calls = {name: _function(name) for name in re.findall(r"^--@include (\w+)$", header.body, re.MULTILINE)}

    assert {name for name, function in calls.items() if not re.search(rf"\b{function}\(", code(header.body))} == set()


@pytest.mark.parametrize("name", INCLUDES)
def test_an_include_is_one_local_function(name: str) -> None:
    """With the name of its file and a comment; there is no other code."""
    text = read_include(name)

    assert len(re.findall(r"^local function \w+\(.*\)$", text, re.MULTILINE)) == 1
    assert _function(name) == name
    assert re.search(rf"^-- {_function(name)}\(.*\): ", text, re.MULTILINE)
    outside = re.sub(r"^local function .*?^end$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert {line for line in outside.splitlines() if line and not line.startswith("--")} == set()


@pytest.mark.parametrize("name", INCLUDES)
def test_an_include_is_included(name: str) -> None:
    """By a script or another include."""
    texts = [path.read_text(encoding="utf-8") for path in LUA_FOLDER.rglob("*.lua")]

    assert any(f"--@include {name}\n" in text for text in texts)


def test_every_change_goes_through_one_include() -> None:
    """Only `append_change` and `begin_timeline` assign versions and write the log."""
    writers = {
        str(path.relative_to(LUA_FOLDER))
        for path in LUA_FOLDER.rglob("*.lua")
        if re.search(r"'XADD'|'INCR', version|'INCRBY'", code(path.read_text(encoding="utf-8")))
    }

    assert writers == {"include/append_change.lua", "include/begin_timeline.lua"}


@pytest.mark.parametrize("path", sorted(LUA_FOLDER.rglob("*.lua")), ids=lambda path: path.stem)
def test_no_script_uses_forbidden_functions(path: Path) -> None:
    """No key search, unbounded reads, JSON, other clocks, or implicit conversion of numbers to text."""
    text = code(path.read_text(encoding="utf-8"))

    assert not re.search(r"cjson|cmsgpack|'KEYS'|'[SHZ]?SCAN'|'SMEMBERS'|'ZRANGE'|'PUBLISH'|'EVAL", text)
    assert "'TIME'" not in text or path.stem == "now_ms"
    assert "os." not in text
    assert "tostring" not in text
    assert not re.search(r"^function |^\w+ = function", text, re.MULTILINE)


def callers() -> list[tuple[str, str, set[str], set[str]]]:
    """Return every `scripts[name].call({keys}, {args})` in the store: module, name, keys and arguments it binds."""
    found = []
    for path in sorted((PACKAGE / "store").rglob("*.py")):
        for node in ast.walk(parse_file(path)):
            match node:
                case ast.Call(
                    ast.Attribute(ast.Subscript(_, ast.Constant(str(name))), "call"), [keys, ast.Dict(argument_names)]
                ):
                    found.append((path.stem, name, _bound(keys), _bound_names(argument_names)))
    return found


def test_the_callers_bind_the_names_of_the_headers() -> None:
    """Exactly these names."""
    called = set()
    for module, name, keys, args in callers():
        header = read_headers()[name]
        assert args == set(header.argument_names), f"store/{module}.py: {name}"
        assert keys == set(names(header, rest=True)) - set(KEYS.shared), f"store/{module}.py: {name}"
        called.add(name)

    assert called == set(SCRIPTS)


def test_the_table_of_the_readme_is_that_of_the_headers() -> None:
    """lua/README.md lists the keys and replies of each script."""
    rows = re.findall(r"^\| `(\w+)\.lua` \| (.+?) \| (.+?) \|$", _readme(), re.MULTILINE)

    assert rows == [
        (name, _listed(names(header, rest=True)), _listed(header.replies)) for name, header in read_headers().items()
    ]


def test_the_readme_names_each_include() -> None:
    """With its purpose."""
    assert re.findall(r"^\* `include/(\w+)\.lua`: ", _readme(), re.MULTILINE) == INCLUDES


def _readme() -> str:
    return (LUA_FOLDER / "README.md").read_text(encoding="utf-8")


def _listed(items: tuple[str, ...]) -> str:
    return ", ".join(f"`{item}`" for item in items)


def _function(name: str) -> str:
    (function,) = re.findall(r"^local function (\w+)\(", read_include(name), re.MULTILINE)
    return str(function)


def _key_name(target: str) -> str:
    """Return the name of a key for a local variable or field."""
    last = target.rpartition(".")[2].rstrip("…")
    return "agent_key" if last in AGENT_KEYS else last


def _bound(keys: ast.expr) -> set[str]:
    """Return the names that are bound in addition to the shared keys."""
    return _bound_names(keys.keys) if isinstance(keys, ast.Dict) else set()


def _bound_names(names_: list[ast.expr | None]) -> set[str]:
    return {str(name.value) for name in names_ if isinstance(name, ast.Constant)}
