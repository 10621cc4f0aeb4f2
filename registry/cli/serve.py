"""The command `mcp-mesh-registry serve`, which runs one replica in this process."""

import asyncio
import os
from collections.abc import Callable

import click

from registry.errors import StartupError


@click.command()
@click.option("--host", help="Address to listen on; default is loopback. [REGISTRY_HOST]")
@click.option("--port", type=int, help="Port to listen on, 0 for any free port; default is 8000. [REGISTRY_PORT]")
@click.option("--redis-url", help="Redis to use; default is an embedded server. [REDIS_URL]")
@click.option("--log-level", help="debug, info, warning or error. [LOG_LEVEL]")
def serve(host: str | None, port: int | None, redis_url: str | None, log_level: str | None) -> None:
    """Run one registry replica until it receives SIGTERM or SIGINT."""
    from registry.config.data_directory import find_shared_data_directory
    from registry.config.env import load_settings
    from registry.config.exposure import find_missing_credential
    from registry.telemetry.logs import configure_logs, get_logger

    try:
        checks = [find_missing_credential, find_shared_data_directory]
        settings, warnings = load_settings(
            os.environ, checks, host=host, port=port, redis_url=redis_url, log_level=log_level
        )
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    configure_logs(settings.log_level, settings.log_format)
    log = get_logger(__name__)
    log.debug("settings_loaded", **settings.masked())

    from registry.main import find_setting_warnings

    warnings += find_setting_warnings(os.environ)
    for warning in warnings:
        log.warning("settings_warning", warning=warning)

    from registry.main import serve as run

    def announce(url: str, data: str, problem: str | None) -> None:
        if problem is not None:
            log.warning("waiting_for_redis", url=url, data=data, problem=problem, instance=settings.instance_id)
            text = f"mcp-mesh-registry on {url} waits for Redis at {data}\n  {problem}"
        else:
            log.info("server_started", url=url, data=data, instance=settings.instance_id)
            text = f"mcp-mesh-registry listens on {url}\n  data: {data}\n  try:  curl {url}/agents"
        if settings.log_format != "json":
            click.echo(f"\n  {text}\n")

    try:
        with asyncio.Runner(loop_factory=_event_loop_factory()) as runner:
            runner.run(run(settings, warnings, announce))
    except StartupError as error:
        raise click.ClickException(str(error)) from error


def _event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory of event loops, or None for asyncio's own loop where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
