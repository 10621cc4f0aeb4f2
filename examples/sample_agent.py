"""An agent that registers, sends heartbeats and prints the resolution of its dependencies.

    python examples/sample_agent.py greeting date_service

Its name is also its capability; the other arguments are its dependencies. When it stops, the next heartbeat of each
consumer returns the new resolution.
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
    """Return the registration: one tool, with the name of its capability."""
    tool = {"function_name": name, "capability": name, "version": "1.0.0", "dependencies": dependencies}
    endpoint = f"http://{socket.gethostname()}:9000/mcp"
    return {
        "agent_id": f"sample-{name.replace('_', '-')}",
        "namespace": os.environ.get("SAMPLE_NAMESPACE", "default"),
        "health_interval": HEARTBEAT_INTERVAL_S,
        "metadata": {"endpoint": endpoint, "tools": [tool]},
    }


async def run_agent(registration: dict[str, Any], stop: asyncio.Event) -> None:
    """Register, send heartbeats until `stop` is set, and unregister; retry while the registry is unreachable."""
    agent_id, registered, version = registration["agent_id"], False, None
    async with RegistryClient() as registry:
        while not stop.is_set():
            try:
                response: Any = await (
                    registry.heartbeat(agent_id, dependencies_version=version)
                    if registered
                    else registry.register_agent(registration)
                )
                registered = response["status"] == "success"
                version = response.get("dependencies_version", version) if registered else None
                if not registered:
                    print(f"{agent_id}: {response['message']}", flush=True)
                for function, found in response.get("dependencies_resolved", {}).items():
                    print(f"{agent_id}: {function} has {found}", flush=True)
            except (ConnectionError, TimeoutError) as error:
                print(f"{agent_id}: continues without a registry: {error}", flush=True)
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                    await stop.wait()
            except TimeoutError:
                continue
        if registered:
            await registry.unregister_agent(agent_id)


async def main(name: str, *dependencies: str) -> None:
    """Run the agent until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    await run_agent(build_registration(name, list(dependencies)), stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
