"""The agent of this process, from its first declaration to the end of the process."""

import atexit
import logging
import os
import signal
import threading
from types import FrameType

from mcp_mesh_client.agent.autostart import Answering
from mcp_mesh_client.agent.lifecycle import Lifetime
from mcp_mesh_client.agent.local_agent import ThisAgent
from mcp_mesh_client.event_loop_thread import THREAD


class Presence:
    """An agent, who answers for it, and its life, which begins with whatever the agent is told."""

    def __init__(self) -> None:
        self.agent = ThisAgent()
        self._settle_in()

    def leave(self) -> None:
        """Unregister."""
        self.lifetime.leave()

    def close(self) -> None:
        """Unregister, answer no more, and end all threads."""
        self.leave()
        self.answering.close()
        self.agent.close()

    def after_fork(self) -> None:
        """Become another agent than the parent: with its functions and what they resolved to, but a life to begin."""
        self.agent.begin_anew()
        self._settle_in()

    def _settle_in(self) -> None:
        self.answering = Answering(self.agent)
        self.lifetime = Lifetime(self.agent, self.answering.by_itself)
        self.agent.follow = self.lifetime.begin


_present: Presence | None = None
_lock = threading.RLock()
# Seconds that a process which was told to end takes at most to say so.
_LONGEST_LEAVE = 4.0


def present() -> Presence:
    """Return the presence of this process. Raises InvalidData where the environment says what cannot be."""
    global _present  # noqa: PLW0603 - one process, one agent
    with _lock:
        if _present is None:
            _present = Presence()
            _leave_on_termination()
            logging.getLogger("httpx2").addFilter(_is_not_routine)
        return _present


def agent_id() -> str:
    """Return the id of the agent that this process is: `MCP_MESH_AGENT_NAME` or `agent`, and eight digits."""
    return present().agent.id


@atexit.register
def _leave() -> None:
    if _present is not None:
        _present.leave()


def _leave_on_termination() -> None:
    """Take leave on SIGTERM, too, where the process has no handler of its own for it.

    One that is installed later takes its place; SIGINT ends a Python process in the usual way.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Take leave and end as without a handler: of the signal. A second one does not wait."""
    signal.signal(number, signal.SIG_DFL)
    # The code that was interrupted may hold any lock, so it is done by a thread, and not waited for without end.
    leaving = threading.Thread(target=_leave, name="registry leave", daemon=True)
    leaving.start()
    leaving.join(_LONGEST_LEAVE)
    signal.raise_signal(number)


def _is_not_routine(record: logging.LogRecord) -> bool:
    """Keep the HTTP library from telling of each heartbeat, where an application lets it tell of its own requests."""
    return record.levelno > logging.INFO or record.threadName != THREAD


def _forked() -> None:
    global _lock  # noqa: PLW0603 - somebody who is not here may hold it
    _lock = threading.RLock()
    if _present is not None:
        _present.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
