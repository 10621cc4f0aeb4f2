"""The agent of this process from its first declaration to the end of the process."""

import atexit
import os
import signal
import threading
from types import FrameType

from mcp_mesh_client.agent.autostart import AgentServer
from mcp_mesh_client.agent.local_agent import LocalAgent
from mcp_mesh_client.agent.registration_loop import AgentLifecycle
from mcp_mesh_client.agent.request_log import omit_agent_requests


class AgentProcess:
    """The agent, its server and its registration, which starts with the first declaration."""

    def __init__(self) -> None:
        self.agent: LocalAgent = LocalAgent()
        self._attach_agent()

    def deregister(self) -> None:
        """Deregister the agent and stop its heartbeats."""
        self.lifecycle.stop()

    def close(self) -> None:
        """Deregister the agent, stop its server, and end all its threads."""
        self.deregister()
        self.server.close()
        self.agent.close()

    def after_fork(self) -> None:
        """Turn the agent of a forked process into a new, unregistered agent with the same functions."""
        self.agent.reset_after_fork()
        self._attach_agent()

    def _attach_agent(self) -> None:
        self.server: AgentServer = AgentServer(self.agent)
        self.lifecycle: AgentLifecycle = AgentLifecycle(self.agent, self.server.autostart)
        self.agent.on_change = self.agent.caller.send_heartbeat = self.lifecycle.start


_current: AgentProcess | None = None
_lock = threading.RLock()
# Limit of the deregistration after SIGTERM.
_DEREGISTER_TIMEOUT_S = 4.0


def current_process() -> AgentProcess:
    """Return the agent of this process. Raises InvalidData for an invalid environment variable."""
    global _current  # noqa: PLW0603 - one process, one agent
    with _lock:
        if _current is None:
            _current = AgentProcess()
            _install_sigterm_handler()
            omit_agent_requests()
        return _current


def agent_id() -> str:
    """Return the agent id of this process: `MCP_MESH_AGENT_ID`, or the agent's name and eight hexadecimal digits.

    Call it after the declarations that name the agent: this call decides the id.
    """
    return current_process().agent.id


@atexit.register
def _deregister_at_exit() -> None:
    if _current is not None:
        _current.deregister()


def _install_sigterm_handler() -> None:
    """Deregister the agent also on SIGTERM, if the process has no handler for this signal.

    A handler that is installed later replaces this one. After SIGINT Python exits normally and runs `atexit`.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """Deregister the agent, then end the process by SIGTERM; a second SIGTERM ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    # The interrupted code may hold any lock, so a thread deregisters, and the wait for it is limited.
    thread = threading.Thread(target=_deregister_at_exit, name="mcp-mesh-deregister", daemon=True)
    thread.start()
    thread.join(_DEREGISTER_TIMEOUT_S)
    signal.raise_signal(number)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it
    _lock = threading.RLock()
    if _current is not None:
        _current.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
