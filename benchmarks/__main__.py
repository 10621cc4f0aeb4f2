"""`python -m benchmarks [name ...] [--seconds S] [--agents N]`: measure, and print tables."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from benchmarks.cases import CASE_NAMES, run
from benchmarks.context import Options
from benchmarks.load_generator import WrongResponseError
from benchmarks.servers import choose_cores


def main() -> None:
    """Read the command line, run the cases, print what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast the registry is.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(CASE_NAMES)}; all unless given")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, after 1 s of warm-up; 5")
    parser.add_argument("--agents", type=int, default=10_000, help="in the store, a multiple of 1,000; 10,000")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in CASE_NAMES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(CASE_NAMES)}")
    if given.agents < 1000 or given.agents % 1000 or given.agents > 100_000:
        parser.error("--agents: expected a multiple of 1,000 up to 100,000")
    if not 0 < given.seconds <= 60:
        parser.error("--seconds: expected more than 0 and at most 60")
    if sys.platform != "linux":
        parser.error("CPU time and cores are read the way Linux tells them; run this there")
    cores = choose_cores()
    load = os.getloadavg()[0]
    print(f"{cores.description}; load average before: {load:.2f}")
    # The generator makes no cycles, and its pauses would be measured.
    gc.disable()
    options = Options(given.seconds, given.agents, cores)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_and_print(options, given.names or CASE_NAMES, cores.others))
    except WrongResponseError as error:
        sys.exit(f"No figures: {error}")


async def _run_and_print(options: Options, names: Sequence[str], cores: frozenset[int]) -> None:
    os.sched_setaffinity(0, cores)
    task = asyncio.current_task()
    assert task is not None
    # Told to stop, it ends its servers all the same.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for table in await run(options, names):
        print(f"\n{table}")


if __name__ == "__main__":
    main()
