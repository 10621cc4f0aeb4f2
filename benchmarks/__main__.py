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
    """Read the command line, run the cases, print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the registry.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(CASE_NAMES)}; default is all")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="duration of each measurement, after 1 s of warm-up; default is 5"
    )
    parser.add_argument(
        "--agents", type=int, default=10_000, help="number of agents, a multiple of 1,000; default is 10,000"
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASE_NAMES]
    if unknown:
        parser.error(f"unknown case {', '.join(unknown)}; the cases are {', '.join(CASE_NAMES)}")
    if options.agents < 1000 or options.agents % 1000 or options.agents > 100_000:
        parser.error("--agents: expected a multiple of 1,000 up to 100,000")
    if not 0 < options.seconds <= 60:
        parser.error("--seconds: expected more than 0 and at most 60")
    if sys.platform != "linux":
        parser.error("CPU time and cores are read from Linux interfaces; run this on Linux")
    cores = choose_cores()
    load = os.getloadavg()[0]
    print(f"{cores.description}; load average before: {load:.2f}")
    # The load generator creates no reference cycles, and pauses of the collector would be measured.
    gc.disable()
    run_options = Options(options.seconds, options.agents, cores)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_and_print(run_options, options.names or CASE_NAMES, cores.others))
    except WrongResponseError as error:
        sys.exit(f"No results: {error}")


async def _run_and_print(options: Options, names: Sequence[str], cores: frozenset[int]) -> None:
    os.sched_setaffinity(0, cores)
    task = asyncio.current_task()
    assert task is not None
    # SIGTERM cancels the run, which stops its servers.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for table in await run(options, names):
        print(f"\n{table}")


if __name__ == "__main__":
    main()
