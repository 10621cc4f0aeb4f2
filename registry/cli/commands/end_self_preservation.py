"""`mcp-mesh-registry release-hold`: what was held because so many agents fell silent together goes on now."""

import asyncio
import contextlib

import click

from registry.cli.connection import token_option, url_option

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415


@click.command("release-hold")
@url_option
@token_option
def end_self_preservation(*, url: str, token: str | None) -> None:
    """End the hold of a mass silence, for all replicas.

    The status is 0 whether a hold was on or not; what it was is printed.
    """
    from registry.cli.caller import Caller, CallFailed

    async def release() -> str:
        # Of several replicas one is enough.
        with contextlib.closing(Caller(url.partition(",")[0].strip(), token)) as caller:
            return str((await caller.call("POST", "/admin/sweep/release"))["message"])

    try:
        click.echo(asyncio.run(release()))
    except CallFailed as error:
        raise click.ClickException(str(error)) from error
