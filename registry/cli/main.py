"""The command `mcp-mesh-registry` with its subcommands; without a subcommand it runs `serve`."""

from typing import Any

import click

from registry import __version__
from registry.cli.commands import COMMANDS
from registry.cli.errors import EXIT_INTERRUPTED
from registry.cli.maintenance import backup, doctor, restore
from registry.cli.serve import serve


class _DefaultToServeGroup(click.Group):
    """The command group, which runs `serve` if no subcommand is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:
            # The shell completes the name of a subcommand.
            return super().parse_args(ctx, args)
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit with 130 if Ctrl-C interrupts it, at any point, also during its imports."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


@click.group(cls=_DefaultToServeGroup)
@click.version_option(__version__, prog_name="mcp-mesh-registry")
def main(**_options: Any) -> None:
    """Registry in which MCP agents register, send heartbeats and discover each other."""


for command in (serve, backup, restore, doctor, *COMMANDS):
    main.add_command(command)
