"""An agent that announces itself, stays alive and says whom it depends on; it does nothing else.

    python examples/sample_agent.py greeting date_service

It has the capability it is named for and needs the others. Stop it, and those who need it are told with their next
heartbeat.
"""

import asyncio
import os
import signal
import socket
import sys
from typing import Any

from mcp_mesh_client import RegistryClient

HEARTBEAT_INTERVAL_S = 5.0


def build_registration(name: str, dependencies: list[str]) -> dict[str, Any]:
    """Return what the agent says of itself: one tool, named for its capability."""
    tool = {"function_name": name, "capability": name, "version": "1.0.0", "dependencies": dependencies}
    endpoint = f"http://{socket.gethostname()}:9000/mcp"
    return {
        "agent_id": f"sample-{name.replace('_', '-')}",
        "namespace": os.environ.get("SAMPLE_NAMESPACE", "default"),
        "health_interval": HEARTBEAT_INTERVAL_S,
        "metadata": {"endpoint": endpoint, "tools": [tool]},
    }


async def run_agent(registration: dict[str, Any], stop: asyncio.Event) -> None:
    """Register, beat until told to stop, unregister. A registry that is away is waited for."""
    agent_id, known, seen = registration["agent_id"], False, None
    async with RegistryClient() as registry:
        while not stop.is_set():
            try:
                answer: Any = await (
                    registry.heartbeat(agent_id, dependencies_version=seen)
                    if known
                    else registry.register_agent(registration)
                )
                known = answer["status"] == "success"
                seen = answer.get("dependencies_version", seen) if known else None
                if not known:
                    print(f"{agent_id}: {answer['message']}", flush=True)
                for function, found in answer.get("dependencies_resolved", {}).items():
                    print(f"{agent_id}: {function} has {found}", flush=True)
            except (ConnectionError, TimeoutError) as error:
                print(f"{agent_id}: goes on without a registry: {error}", flush=True)
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                    await stop.wait()
            except TimeoutError:
                continue
        if known:
            await registry.unregister_agent(agent_id)


async def main(name: str, *dependencies: str) -> None:
    """Live until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_agent(build_registration(name, list(dependencies)), stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
