"""Deregistration of the agent when the process ends: one blocking request.

At that time there may be no event loop, and no thread can be started for a DNS lookup. So this does not use the client.
"""

import logging
from urllib.parse import quote

from mcp_mesh_client.config import load_config
from mcp_mesh_client.network_environment import proxy_for

_log = logging.getLogger("mcp_mesh_client")

# For each replica. Without a deregistration the agent expires after its thresholds.
_REQUEST_TIMEOUT_S = 1.0
_NOT_FOUND = 404


def deregister(url: str | None, agent_id: str) -> None:
    """Deregister an agent at the first registry replica that responds."""
    import urllib.error  # noqa: PLC0415 - heavy, and only needed here
    import urllib.request  # noqa: PLC0415

    config = load_config(url, None)
    last_error: Exception | None = None
    for each in config.urls:
        request = urllib.request.Request(f"{each}/agents/{quote(agent_id, safe='')}", method="DELETE")  # noqa: S310 - http or https, checked
        if config.token is not None:
            request.add_header("authorization", f"Bearer {config.token}")
        try:
            proxy = proxy_for(each)
            proxies = {} if proxy is None else {request.type: proxy.url}
            opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
            with opener.open(request, timeout=_REQUEST_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            if error.code == _NOT_FOUND:
                return
            last_error = error
        except OSError as error:
            last_error = error
    _log.warning("agent_deregistration_failed id=%s error=%s", agent_id, last_error)
