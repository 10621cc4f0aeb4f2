"""Unregistering when the process ends: one plain request that waits.

At that moment there may be no event loop, and no thread can be started to look a name up. So this is not the way of
all other calls.
"""

import logging
from urllib.parse import quote

from mcp_mesh_client.config import load_config

_log = logging.getLogger("mcp_mesh_client")

# Seconds each replica has; whoever has not heard it marks the agent as silent in time.
_REQUEST_TIMEOUT_S = 1.0
_NOT_FOUND = 404


def deregister(url: str | None, agent_id: str) -> None:
    """Tell the first replica that can be reached that an agent is gone."""
    import urllib.error  # noqa: PLC0415 - heavy, and needed once
    import urllib.request  # noqa: PLC0415

    said = load_config(url, None)
    why: Exception | None = None
    for each in said.urls:
        request = urllib.request.Request(f"{each}/agents/{quote(agent_id, safe='')}", method="DELETE")  # noqa: S310 - http or https, checked
        if said.token is not None:
            request.add_header("authorization", f"Bearer {said.token}")
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            if error.code == _NOT_FOUND:
                return
            why = error
        except OSError as error:
            why = error
    _log.warning("agent_deregistration_failed id=%s error=%s", agent_id, why)
