"""`python -m deploy.tools`: start the Compose stack, apply load and faults, check that nothing is lost, remove it.

The exit code is 0 only if every step passed, and 2 without Docker.
"""

import asyncio
import signal
import sys

import aiohttp

from deploy.tools.compose_stack import Stack, StackFailed, docker_unavailable_reason
from deploy.tools.report import Report
from deploy.tools.scenario import ComposeScenario


async def main() -> int:
    """Run the scenario, and remove the stack in any case."""
    reason = await docker_unavailable_reason()
    if reason is not None:
        print(f"compose-test needs Docker with Compose: {reason}", file=sys.stderr)
        return 2
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    stack = Stack()
    report = Report()
    try:
        await ComposeScenario(stack, report).run()
    except asyncio.CancelledError:
        print("\nStopped.", file=sys.stderr)
        return 1
    except (StackFailed, AssertionError, aiohttp.ClientError, TimeoutError) as error:
        print(f"\nFAILED: {type(error).__name__}: {error}", file=sys.stderr)
        print(await stack.compose("logs", "--no-color", "--tail", "40"), file=sys.stderr)
        return 1
    finally:
        with report.row("down: containers, networks and volume are gone") as row:
            left = await stack.down()
            row.result = f"left behind: {' '.join(left)}" if left else "nothing left"
    print("\nAll steps passed.")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
