"""The script loader: resolve includes, parse headers, bind keys and arguments by name."""

import tomllib
from hashlib import sha1
from pathlib import Path

import pytest

from registry.errors import StartupError
from registry.store import scripts
from registry.store.scripts import inline_includes, load_scripts, lua_folder, read_script
from tests.support.source_code import ROOT

HEADER = """#!lua flags=allow-oom
--[[ {name} — do something.

  KEYS   first     string  {{mesh}}:first
         second    hash    {{mesh}}:second
         rest_…    hash    {{mesh}}:rest:<id>, one for each
  ARGV   one       text
         two…      integer, and more
                   words that explain it
  REPLY  ok        it did
  WRITES first
  EMITS  nothing
  COST   O(1)
]]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Provide an empty folder of scripts."""
    (tmp_path / "include").mkdir()
    return tmp_path


def include(folder: Path, name: str, text: str) -> None:
    """Write an include."""
    (folder / "include" / f"{name}.lua").write_text(text)


def script(folder: Path, name: str, text: str) -> None:
    """Write a script with a valid header."""
    (folder / f"{name}.lua").write_text(HEADER.format(name=name) + text)


def test_an_include_replaces_its_line(folder: Path) -> None:
    """Nested includes precede it."""
    include(folder, "inner", "-- inner\n")
    include(folder, "outer", "--@include inner\n-- outer\n")
    (folder / "do.lua").write_text("-- top\n--@include outer\n-- below\n")

    assert inline_includes(folder, "do") == "-- top\n-- inner\n-- outer\n-- below\n"


def test_an_include_of_two_others_is_inserted_once(folder: Path) -> None:
    """It precedes both."""
    include(folder, "shared", "-- shared\n")
    include(folder, "left", "--@include shared\n-- left\n")
    include(folder, "right", "--@include shared\n-- right\n")
    (folder / "do.lua").write_text("--@include left\n--@include right\n--@include shared\n-- below\n")

    assert inline_includes(folder, "do") == "-- shared\n-- left\n-- right\n-- below\n"


def test_a_cycle_of_includes_is_rejected(folder: Path) -> None:
    """The error names its files."""
    include(folder, "hen", "--@include egg\n")
    include(folder, "egg", "--@include hen\n")
    (folder / "do.lua").write_text("--@include hen\n")

    with pytest.raises(
        StartupError, match=r"cycle: do\.lua -> include/hen\.lua -> include/egg\.lua -> include/hen\.lua$"
    ):
        inline_includes(folder, "do")


def test_a_missing_include_is_rejected_with_its_includers(folder: Path) -> None:
    """The last file in the error is the missing one."""
    include(folder, "there", "--@include nowhere\n")
    (folder / "do.lua").write_text("--@include there\n")

    with pytest.raises(StartupError, match=r"not found: do\.lua -> include/there\.lua -> include/nowhere\.lua$"):
        inline_includes(folder, "do")


def test_a_header_lists_keys_and_arguments_in_order(folder: Path) -> None:
    """Their descriptions are ignored."""
    script(folder, "do", "return 1\n")

    read = read_script(folder, "do")

    assert read.keys == ("first", "second", "rest_…")
    assert read.args == ("one", "two…")


def test_a_header_without_arguments_has_the_word_none(folder: Path) -> None:
    """The word is not a name."""
    text = HEADER.format(name="do").replace("one       text\n         two…      integer, and more", "none")
    (folder / "do.lua").write_text(text)

    assert read_script(folder, "do").args == ()


@pytest.mark.parametrize(
    "text",
    [
        "return 1\n",
        "#!lua\nreturn 1\n",
        HEADER.format(name="other"),
        HEADER.format(name="do").removeprefix("#!lua flags=allow-oom\n"),
        HEADER.format(name="do").replace("  ARGV ", "  ARGS "),
    ],
    ids=["nothing", "only a shebang", "another name", "no shebang", "no ARGV"],
)
def test_an_invalid_header_stops_the_startup(text: str, folder: Path) -> None:
    """The error names the script."""
    (folder / "do.lua").write_text(text)

    with pytest.raises(StartupError, match=r"lua/do\.lua"):
        read_script(folder, "do")


def test_a_call_is_bound_by_name(folder: Path) -> None:
    """Other names in the mappings are ignored; a list parameter takes the rest."""
    script(folder, "do", "return 1\n")
    read = read_script(folder, "do")

    call = read.call(
        {"second": b"2", "first": b"1", "rest_…": [b"3", b"4"], "unneeded": b"x"}, {"two…": (5, "six"), "one": "1"}
    )

    assert call.evalsha == ("EVALSHA", read.sha, 4, b"1", b"2", b"3", b"4", "1", 5, "six")
    assert call.eval == ("EVAL", read.text, 4, b"1", b"2", b"3", b"4", "1", 5, "six")


@pytest.mark.parametrize("missing", ["first", "rest_…", "one"])
def test_a_missing_name_is_an_error_of_the_call(missing: str, folder: Path) -> None:
    """Otherwise Redis would get a wrong position."""
    script(folder, "do", "return 1\n")
    keys = {"first": b"1", "second": b"2", "rest_…": b"3"}
    args = {"one": "1", "two…": "2"}

    with pytest.raises(KeyError, match=missing):
        read_script(folder, "do").call(
            {name: value for name, value in keys.items() if name != missing},
            {name: value for name, value in args.items() if name != missing},
        )


def test_a_server_without_shebang_support_gets_none(folder: Path) -> None:
    """The digest is that of the text sent."""
    script(folder, "do", "return 1\n")
    whole, bare = read_script(folder, "do"), read_script(folder, "do", shebang=False)

    assert whole.text == f"#!lua flags=allow-oom\n{bare.text}"
    assert whole.sha == sha1(whole.text.encode()).hexdigest()  # noqa: S324 - Redis names scripts so
    assert bare.sha == sha1(bare.text.encode()).hexdigest()  # noqa: S324 - the digest of a script


def test_every_script_of_the_registry_loads() -> None:
    """The second call returns the same objects."""
    loaded = load_scripts()

    assert set(loaded) == {path.stem for path in lua_folder().glob("*.lua")}
    assert load_scripts() is loaded


def test_a_checkout_has_the_scripts_next_to_the_package() -> None:
    """Developers look for them there."""
    assert lua_folder() == Path(scripts.__file__).resolve().parents[2] / "lua"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the folder of an installed package, without its scripts."""
    package = tmp_path / "site-packages" / "registry"
    (package / "store").mkdir(parents=True)
    monkeypatch.setattr(scripts, "__file__", str(package / "store" / "scripts.py"))
    return package


def test_an_installed_package_has_the_scripts_inside(installed: Path) -> None:
    """The wheel has this layout."""
    (installed / "lua").mkdir()
    (installed / "lua" / "register.lua").touch()

    assert lua_folder() == installed / "lua"


def test_the_error_without_scripts_has_the_next_step(installed: Path) -> None:
    """The registry cannot start."""
    with pytest.raises(StartupError, match=f"{installed} are missing; reinstall mcp-mesh-registry"):
        lua_folder()


def test_the_wheel_has_the_scripts_where_the_loader_looks() -> None:
    """`lua/` of the checkout is `registry/lua/` of the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["lua"] == "registry/lua"
