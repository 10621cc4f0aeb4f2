"""The stack of compose.yaml under a separate name, port and volume, with the operations of the scenario."""

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson

ROOT = Path(__file__).resolve().parents[2]
PORT = "8080"
VENV = "/opt/venv"
_POLL_INTERVAL_S = 0.1
T = TypeVar("T")
# Runs in a replica's container: requests this replica without the load balancer.
_GET_PROGRAM = (
    "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10); "
    "c.request('GET', sys.argv[2]); r = c.getresponse(); print(r.status, r.read().decode())"
)
# Runs in the host's process namespace: waits for a line, then kills a process. After `docker kill` no restart follows.
_KILL_PROGRAM = (
    "import os, sys; print('ready', flush=True); sys.stdin.readline() and os.kill(int(sys.argv[1]), 9); print('done')"
)


class StackFailed(Exception):
    """A Docker command failed, or a condition was not met in time."""


class Response(NamedTuple):
    """The response of one replica."""

    status: int
    body: str

    @property
    def agent_ids(self) -> list[str]:
        """The ids in a list of agents."""
        return [agent["id"] for agent in orjson.loads(self.body)["agents"]]


@dataclass(frozen=True, slots=True)
class Container:
    """One container: its name as Docker prints it, and its full id."""

    name: str
    id: str

    async def get(self, path: str) -> Response:
        """GET a path of the replica that runs in it."""
        status, _, body = (await docker("exec", self.id, "python", "-c", _GET_PROGRAM, PORT, path)).partition(" ")
        return Response(int(status), body)

    async def inspect(self, template: str) -> str:
        """Return the output of `docker inspect` for a Go template."""
        return (await docker("inspect", "--format", template, self.id)).strip()


class Stack:
    """The stack of compose.yaml, separate from others on this machine; `down` removes all but the image."""

    def __init__(self) -> None:
        self.project = f"mcp-mesh-test-{os.getpid()}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{listen}"
        # Fixed settings and no `.env` file; the environment selects the sources of packages and base images.
        self._environ = os.environ | {"LISTEN": listen, "AUTH_TOKEN": "", "LOG_LEVEL": "info"}
        self._compose = ("docker", "compose", "--project-name", self.project, "--env-file", os.devnull)

    async def compose(self, *arguments: str) -> str:
        """Run docker compose on this stack and return its output."""
        return await _run(*self._compose, *arguments, environ=self._environ)

    async def image_size(self) -> tuple[int, int]:
        """Return the size of the layers that deploy/Dockerfile adds, and of the whole image, in bytes."""
        image = orjson.loads(await self.compose("config", "--format", "json"))["services"]["registry"]["image"]
        history = await docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
        layers = [line.partition(" ") for line in history.splitlines()]
        # Newest first; layers older than the copy of the environment belong to the base image.
        (oldest,) = (index for index, (_, _, by) in enumerate(layers) if "COPY" in by and VENV in by)
        sizes = [int(size) for size, _, _ in layers]
        return sum(sizes[: oldest + 1]), sum(sizes)

    async def replicas(self) -> list[Container]:
        """Return the running containers of the replicas, sorted by name."""
        template = "{{.Names}} {{.ID}}"
        project_filter = f"label=com.docker.compose.project={self.project}"
        listed = await docker(
            *("ps", "--no-trunc", "--filter", project_filter, "--filter", "label=com.docker.compose.service=registry"),
            *("--format", template),
        )
        return [Container(*line.split()) for line in sorted(listed.splitlines())]

    async def wait_until_ready(self, count: int, *, timeout: float = 60) -> list[Container]:
        """Wait until exactly this many replicas run and are ready; return them."""

        async def are_ready() -> list[Container]:
            found = await self.replicas()
            if len(found) != count:
                return []
            with contextlib.suppress(StackFailed):  # a container that has just started rejects exec
                if {(await replica.get("/ready")).status for replica in found} == {200}:
                    return found
            return []

        return await wait_until(are_ready, f"{count} replicas are ready", timeout)

    @contextlib.asynccontextmanager
    async def prepared_kill(self, victim: Container) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Prepare a function that kills the process of a container immediately, like `kill -9`."""
        pid = await victim.inspect("{{.State.Pid}}")
        image = await victim.inspect("{{.Image}}")
        process = await asyncio.create_subprocess_exec(
            *("docker", "run", "--rm", "--interactive", "--pid", "host", "--user", "0", "--network", "none"),
            *("--entrypoint", "python", image, "-c", _KILL_PROGRAM, pid),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdin is None or process.stdout is None:
            raise StackFailed("the kill container has no pipes")
        await _expect_line(process.stdout, "ready")
        stdin, stdout = process.stdin, process.stdout

        async def kill() -> None:
            stdin.write(b"now\n")
            await _expect_line(stdout, "done")

        try:
            yield kill
        finally:
            stdin.close()
            await process.wait()

    async def down(self) -> list[str]:
        """Remove containers, networks and the volume; return the ids of those that remain."""
        await self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        project_filter = f"label=com.docker.compose.project={self.project}"
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        left = [await docker(*kind, "--quiet", "--filter", project_filter) for kind in kinds]
        return " ".join(left).split()


async def wait_until(condition: Callable[[], Awaitable[T]], description: str, timeout: float) -> T:
    """Return the first true result of `condition`. Raises StackFailed after the timeout."""
    deadline = time.monotonic() + timeout
    while not (found := await condition()):
        if time.monotonic() >= deadline:
            raise StackFailed(f"not within {timeout:.0f} s: {description}")
        await asyncio.sleep(_POLL_INTERVAL_S)
    return found


async def docker(*arguments: str) -> str:
    """Run docker and return its output. Raises StackFailed."""
    return await _run("docker", *arguments, environ=dict(os.environ))


async def docker_unavailable_reason() -> str | None:
    """Return why the stack cannot run on this machine; None if it can."""
    if shutil.which("docker") is None:
        return "docker is not on PATH"
    try:
        await docker("version")
        await docker("compose", "version")
    except StackFailed as error:
        return str(error)
    return None


async def _run(*command: str, environ: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if process.returncode:
        error_lines = stderr.decode(errors="replace").strip().splitlines()[-12:]
        raise StackFailed("\n  ".join([f"{' '.join(command)} ended with status {process.returncode}:", *error_lines]))
    return stdout.decode(errors="replace")


async def _expect_line(stream: asyncio.StreamReader, expected: str) -> None:
    line = (await stream.readline()).decode().strip()
    if line != expected:
        raise StackFailed(f"the kill container printed {line!r}, not {expected!r}")
