"""What the README says of the command line is what it is."""

from registry.cli import errors
from registry.cli.main import main
from tests.test_readme import section, table


def test_the_commands_are_all_there_and_no_others() -> None:
    """By the first word of their row."""
    rows = [cells[0].strip("`").split()[0] for cells in table("Command line", "command")]

    assert sorted(rows) == sorted(main.commands)


def test_the_exit_codes_are_all_there() -> None:
    """In order."""
    codes = [int(cells[0].strip("`")) for cells in table("Command line", "exit code")]

    assert codes == [0, *sorted(code for name, code in vars(errors).items() if name.startswith("EXIT_"))]


def test_the_variables_are_named() -> None:
    """For the URL and the token."""
    for name in ("MCP_MESH_REGISTRY_URL", "MCP_MESH_REGISTRY_TOKEN", "AUTH_TOKEN"):
        assert f"`{name}`" in section("Command line")
