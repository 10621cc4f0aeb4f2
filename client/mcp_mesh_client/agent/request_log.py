"""The log records of the HTTP library about requests of the agent, which are not logged one by one."""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

from mcp_mesh_client.event_loop_thread import THREAD_NAME

_is_agent_request: ContextVar[bool] = ContextVar("_is_agent_request", default=False)


@contextlib.contextmanager
def agent_request() -> Iterator[None]:
    """Mark the requests sent in this block as requests of the agent."""
    token = _is_agent_request.set(True)
    try:
        yield
    finally:
        _is_agent_request.reset(token)


def omit_agent_requests() -> None:
    """Omit the INFO records of the HTTP library about heartbeats and calls of the agent; keep all others."""
    logging.getLogger("httpx2").addFilter(_is_logged)


def _is_logged(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not (_is_agent_request.get() or record.threadName == THREAD_NAME)
