"""Errors of dependencies that a function of the agent does not handle, as errors of its MCP tool."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from mcp_mesh_client.errors import DependencyFailed, DependencyTimeout, DependencyUnavailable

_SDK_ERRORS_MODULE = "mcp.server.mcpserver.exceptions"
# The class of each kind of error that is also a ToolError.
_TOOL_ERRORS: dict[type[Exception], Any] = {}


@contextlib.contextmanager
def reported_to_caller() -> Iterator[None]:
    """Let the MCP SDK report an error of a dependency with its text: otherwise it logs a traceback and hides the text.

    The error also becomes a ToolError of the SDK, and stays an object of its own class for all other callers.
    """
    try:
        yield
    except (DependencyUnavailable, DependencyTimeout, DependencyFailed) as error:
        sdk_errors = sys.modules.get(_SDK_ERRORS_MODULE)
        if sdk_errors is not None and not isinstance(error, sdk_errors.ToolError):
            _become_tool_error(error, sdk_errors.ToolError)
        raise


def _become_tool_error(error: Exception, tool_error: type[Exception]) -> None:
    kind = error.__class__
    if kind not in _TOOL_ERRORS:
        _TOOL_ERRORS[kind] = type(kind.__name__, (kind, tool_error), {"__module__": kind.__module__})
    error.__class__ = _TOOL_ERRORS[kind]
