"""The parts of the synchronous client that are not generated: its thread, `close()`, and its watch."""

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from mcp_mesh_client.client import RegistryClient
from mcp_mesh_client.config import ClientOptions
from mcp_mesh_client.errors import ClientClosed
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.keep_alive import KeepAlive
from mcp_mesh_client.retry import ConnectionState
from mcp_mesh_client.types.agents import WatchEvent
from mcp_mesh_client.watch import Watch


class SyncWatch:
    """An iterator of watch events; `with` waits until the watch is established, and closes the watch at the end.

    Another thread may close it.
    """

    def __init__(self, watch: Watch, thread: EventLoopThread) -> None:
        self._watch = watch
        self._thread = thread

    @property
    def resource_version(self) -> str | None:
        """The version of the last event returned or, if newer, of the last bookmark."""
        return self._watch.resource_version

    def __enter__(self) -> Self:
        self._thread.run(self._watch.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        """Wait for the next event. Raises RequestRejected if the registry rejects the watch."""
        try:
            return self._thread.run(self._watch.__anext__())
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None

    def close(self) -> None:
        """End the watch; an iteration that waits for an event ends, too."""
        # A closed client has closed its watches already.
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._watch.close())


class SyncKeepAlive:
    """An agent that stays registered until this object is closed; `with` waits for the first registration.

    `agent_id` is the id of the agent. `close` removes the agent; another thread may call it.
    """

    def __init__(self, keep_alive: KeepAlive, thread: EventLoopThread) -> None:
        self.agent_id: str = keep_alive.agent_id
        self._keep_alive = keep_alive
        self._thread = thread

    def __enter__(self) -> Self:
        """Wait until the agent is registered. Raises RequestRejected if the registry rejects the registration."""
        self._thread.run(self._keep_alive.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the heartbeats, and remove the agent if the registry can be reached."""
        # A closed client has removed its agents already.
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._keep_alive.close())


class SyncSession:
    """Opens and closes a RegistryClient on an event loop in its own thread."""

    def __init__(
        self, url: str | Sequence[str] | None = None, *, token: str | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self._client = RegistryClient(url, token=token, **options)
        self._thread = EventLoopThread()

    def __repr__(self) -> str:
        return f"Sync{self._client!r}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> ConnectionState:
        """The state of the registry at the last call: `unknown`, `online`, `degraded` or `offline`."""
        return self._client.state

    def close(self) -> None:
        """End all watches and keep-alives, and close all connections. Other calls in progress raise ClientClosed."""
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._client.close())
        self._thread.stop()
