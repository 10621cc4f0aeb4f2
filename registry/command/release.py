"""`mcp-mesh-registry release-hold`: what was held because so many agents fell silent together goes on now."""

import asyncio
import contextlib

import click

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415


@click.command("release-hold")
@click.option(
    "--url",
    envvar="MCP_MESH_REGISTRY_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Any replica of the mesh. [MCP_MESH_REGISTRY_URL]",
)
@click.option("--token", envvar="AUTH_TOKEN", help="The token the registry asks for, if it does. [AUTH_TOKEN]")
def release_hold(*, url: str, token: str | None) -> None:
    """End the hold of a mass silence, for all replicas.

    The status is 0 whether a hold was on or not; what it was is printed.
    """
    from registry.command.caller import Caller, CallFailed

    async def release() -> str:
        with contextlib.closing(Caller(url, token)) as caller:
            return str((await caller.call("POST", "/admin/sweep/release"))["message"])

    try:
        click.echo(asyncio.run(release()))
    except CallFailed as error:
        raise click.ClickException(str(error)) from error
