"""An event loop in its own thread, for callers that have no event loop."""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from mcp_mesh_client.errors import ClientClosed

T = TypeVar("T")

THREAD_NAME = "mcp-mesh-client"


class EventLoopThread:
    """Runs coroutines on an event loop in its own thread, for callers on any other thread.

    The thread starts with the first coroutine and does not keep the process alive. A forked process starts a new
    thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._stopped = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, wait for it and return its result; an interrupted wait cancels the coroutine.

        Raises ClientClosed after `stop()`, which also ends the calls that wait.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self._stopped:
                raise _closed_error() from None
            raise
        except BaseException:
            future.cancel()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine and return the future of its result. Raises ClientClosed after `stop()`."""
        # Under the lock, so that the coroutine is scheduled before `stop()` stops the loop.
        with self._lock:
            if self._stopped:
                coroutine.close()
                raise _closed_error()
            return asyncio.run_coroutine_threadsafe(coroutine, self._ensure_loop())

    def stop(self) -> None:
        """Cancel the running coroutines, and end the event loop and the thread."""
        with self._lock:
            self._stopped = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._pid != os.getpid():
            self._loop = asyncio.new_event_loop()
            self._pid = os.getpid()
            self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name=THREAD_NAME, daemon=True)
            self._thread.start()
        return self._loop


def _closed_error() -> ClientClosed:
    return ClientClosed("The client is closed; create a new one")


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped, then cancel the tasks that still run on it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        remaining = asyncio.all_tasks(loop)
        for task in remaining:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
