"""The README describes the command line completely."""

from registry.cli import errors
from registry.cli.main import main
from tests.test_readme import section, table


def test_the_readme_lists_exactly_the_commands() -> None:
    """The first word of a row is the command."""
    rows = [cells[0].strip("`").split()[0] for cells in table("Command line", "command")]

    assert sorted(rows) == sorted(main.commands)


def test_the_readme_lists_all_exit_codes() -> None:
    """They are in ascending order."""
    codes = [int(cells[0].strip("`")) for cells in table("Command line", "exit code")]

    assert codes == [0, *sorted(code for name, code in vars(errors).items() if name.startswith("EXIT_"))]


def test_the_readme_names_the_variables() -> None:
    """They set the URL and the token."""
    for name in ("MCP_MESH_REGISTRY_URL", "MCP_MESH_REGISTRY_TOKEN", "AUTH_TOKEN"):
        assert f"`{name}`" in section("Command line")
