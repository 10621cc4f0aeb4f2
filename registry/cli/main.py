"""The command line: `serve` is what happens when no command is named."""

from typing import Any

import click

from registry import __version__
from registry.cli.commands import COMMANDS
from registry.cli.errors import EXIT_INTERRUPTED
from registry.cli.maintenance import backup, doctor, restore
from registry.cli.serve import serve


class _DefaultToServeGroup(click.Group):
    """Reads options without a command as options of `serve`, and ends by Ctrl-C as a shell says of it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:
            # The shell asks what could come next.
            return super().parse_args(ctx, args)
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C may come at any moment of it, also while it still imports what it needs."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


@click.group(cls=_DefaultToServeGroup)
@click.version_option(__version__, prog_name="mcp-mesh-registry")
def main(**_options: Any) -> None:
    """Where MCP agents announce themselves, stay alive and find each other."""


main.add_command(serve)
main.add_command(backup)
main.add_command(restore)
main.add_command(doctor)
for each in COMMANDS:
    main.add_command(each)
