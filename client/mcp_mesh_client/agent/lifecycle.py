"""The life of this agent in the mesh: it registers, beats, registers again where it must, and takes its leave."""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable

from mcp_mesh_client.agent.deregister import farewell
from mcp_mesh_client.agent.local_agent import ThisAgent
from mcp_mesh_client.backoff import Backoff
from mcp_mesh_client.client import RegistryClient
from mcp_mesh_client.config import LONGEST_BACKOFF
from mcp_mesh_client.errors import ClientError, RegistryTimeout, RegistryUnavailable, UnreadableAnswer
from mcp_mesh_client.types.agents import Beat, Refusal, Registered

log = logging.getLogger("mcp_mesh_client")

# Seconds: after the last declaration before all of them are registered in one go; the first pause after a failure; and
# how long what is under way may take when the process ends.
SETTLE = 0.3
_FIRST_PAUSE = 1.0
_PATIENCE = 1.0


class Lifetime:
    """Keeps an agent in the mesh from `begin` to `leave`, on the agent's own thread.

    Where nobody says where the agent answers, `answer` is awaited, which may see to that; if it does not yet, it
    returns the seconds until it is to be asked again, None where only news can help.
    """

    def __init__(self, agent: ThisAgent, answer: Callable[[], Awaitable[float | None]]) -> None:
        self._agent = agent
        self._answer = answer
        self._lock = threading.Lock()
        self._life: _Life | None = None
        self._registered: int | None = None
        self._sent = False
        self._seen: str | None = None
        self._refused: str | None = None
        self._backoff = Backoff(_FIRST_PAUSE, LONGEST_BACKOFF)

    def begin(self) -> None:
        """Begin to live; look anew, if it does so already."""
        with self._lock:
            if self._life is None:
                self._life = _Life()
                self._agent.thread.submit(self._live(self._life))
            else:
                self._life.poke()

    def leave(self) -> None:
        """Unregister, and do not come back; what is under way is waited for a moment. It needs no event loop."""
        with self._lock:
            life, self._life = self._life, None
        if life is None:
            return
        life.poke()
        life.ended.wait(_PATIENCE)
        if self._sent:
            self._sent, self._registered, self._seen = False, None, None
            farewell(self._agent.registry_url, self._agent.id)

    async def _live(self, life: "_Life") -> None:
        life.settle_in()
        try:
            while self._life is life:
                url = self._agent.registry_url
                try:
                    async with RegistryClient(url) as registry:
                        while self._life is life and url == self._agent.registry_url:
                            await life.rest(await self._next(registry))
                except Exception as error:
                    # Nobody waits for this loop, so nobody else would ever hear of it.
                    log.exception("The life of %s goes on after an error", self._agent.id)
                    await life.rest(self._put_off(str(error)))
        finally:
            life.ended.set()

    async def _next(self, registry: RegistryClient) -> float | None:
        """Do what is to be done now; return the seconds until the next time, None where only news can help."""
        if (left := self._unsettled()) > 0:
            return left
        if (endpoint := self._agent.endpoint) is None:
            again = await self._answer()
            if (endpoint := self._agent.endpoint) is None:
                return again
        return await self._turn(registry, endpoint)

    def _unsettled(self) -> float:
        """Return the seconds until what is declared is taken to be all."""
        return self._agent.changed_at + SETTLE - time.monotonic()

    async def _turn(self, registry: RegistryClient, endpoint: str) -> float:
        """Register where that is due, else beat; return the seconds until the next time."""
        agent, revision, sent = self._agent, self._agent.revision, self._sent
        try:
            answer: Beat | Registered | Refusal
            if self._registered == revision:
                answer = await registry.heartbeat(agent.id, dependencies_version=self._seen)
            else:
                self._sent = True
                answer = await registry.register_agent(agent.document(endpoint))
        except (RegistryUnavailable, RegistryTimeout) as error:
            self._sent = sent or error.outcome != "not_sent"
            # That nobody answers the client tells the log, once; what is resolved stays so.
            return self._put_off(str(error)) if isinstance(error, UnreadableAnswer) else self._backoff.pause()
        except ClientError as error:
            return self._put_off(str(error))
        finally:
            agent.state = registry.state
        if "error" in answer:
            if answer["error"] == "unknown_agent" and self._registered is not None:
                self._registered = self._seen = None
                return 0.0
            # Whoever never got in has no leave to take.
            self._sent = sent
            return self._put_off(answer["message"])
        self._backoff.reset()
        if self._registered != revision:
            log.info("%s is registered, and answers at %s", agent.id, endpoint)
        self._registered, self._refused = revision, None
        self._seen = answer.get("dependencies_version", self._seen)
        agent.take(answer)
        return agent.interval * random.uniform(0.9, 1.0)  # noqa: S311 - spreads agents, guards nothing

    def _put_off(self, why: str) -> float:
        """Tell once why the registry does not take this agent; return the seconds until it is asked again."""
        if why != self._refused:
            log.error("The registry does not take %s: %s", self._agent.id, why)
            self._refused = why
        return self._backoff.pause()


class _Life:
    """One stretch of living, which can be poked from any thread, in a signal handler as well: no lock is taken."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._poked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def settle_in(self) -> None:
        """Live on the running loop."""
        self._loop = asyncio.get_running_loop()

    def poke(self) -> None:
        """End the rest, or the next one: there is something new."""
        # Before it has settled in it looks at everything anyway; on a stopped loop nobody is left.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._poked.set)

    async def rest(self, seconds: float | None) -> None:
        """Wait so long, or until it is poked."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        self._poked.clear()
