"""The agent of this process, from its first declaration to the end of the process."""

import atexit
import logging
import os
import signal
import threading
from types import FrameType

from mcp_mesh_client.agent.autostart import AgentServer
from mcp_mesh_client.agent.lifecycle import AgentLifecycle
from mcp_mesh_client.agent.local_agent import LocalAgent
from mcp_mesh_client.event_loop_thread import THREAD_NAME


class AgentProcess:
    """An agent, who answers for it, and its life, which begins with whatever the agent is told."""

    def __init__(self) -> None:
        self.agent: LocalAgent = LocalAgent()
        self._attach_agent()

    def deregister(self) -> None:
        """Unregister."""
        self.lifecycle.stop()

    def close(self) -> None:
        """Unregister, answer no more, and end all threads."""
        self.deregister()
        self.server.close()
        self.agent.close()

    def after_fork(self) -> None:
        """Become another agent than the parent: with its functions and what they resolved to, but a life to begin."""
        self.agent.reset_after_fork()
        self._attach_agent()

    def _attach_agent(self) -> None:
        self.server: AgentServer = AgentServer(self.agent)
        self.lifecycle: AgentLifecycle = AgentLifecycle(self.agent, self.server.autostart)
        self.agent.on_change = self.lifecycle.start


_current: AgentProcess | None = None
_lock = threading.RLock()
# Seconds that a process which was told to end takes at most to say so.
_DEREGISTER_TIMEOUT_S = 4.0


def current_process() -> AgentProcess:
    """Return the presence of this process. Raises InvalidData where the environment says what cannot be."""
    global _current  # noqa: PLW0603 - one process, one agent
    with _lock:
        if _current is None:
            _current = AgentProcess()
            _install_sigterm_handler()
            logging.getLogger("httpx2").addFilter(_is_not_heartbeat_request)
        return _current


def agent_id() -> str:
    """Return the id of the agent that this process is: `MCP_MESH_AGENT_NAME` or `agent`, and eight digits."""
    return current_process().agent.id


@atexit.register
def _deregister_at_exit() -> None:
    if _current is not None:
        _current.deregister()


def _install_sigterm_handler() -> None:
    """Take leave on SIGTERM, too, where the process has no handler of its own for it.

    One that is installed later takes its place; SIGINT ends a Python process in the usual way.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """Take leave and end as without a handler: of the signal. A second one does not wait."""
    signal.signal(number, signal.SIG_DFL)
    # The code that was interrupted may hold any lock, so it is done by a thread, and not waited for without end.
    leaving = threading.Thread(target=_deregister_at_exit, name="mcp-mesh-deregister", daemon=True)
    leaving.start()
    leaving.join(_DEREGISTER_TIMEOUT_S)
    signal.raise_signal(number)


def _is_not_heartbeat_request(record: logging.LogRecord) -> bool:
    """Keep the HTTP library from telling of each heartbeat, where an application lets it tell of its own requests."""
    return record.levelno > logging.INFO or record.threadName != THREAD_NAME


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - somebody who is not here may hold it
    _lock = threading.RLock()
    if _current is not None:
        _current.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
