"""The addresses that the proxy may call: only the endpoints of registered agents."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import orjson

from registry.concurrency.cooperative_iteration import cooperative
from registry.model.agent import Agent
from registry.service.discovery.discovery_service import LATEST, Discovery

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """The announced endpoint of an agent; `host` is a name or an address, in lower case without brackets."""

    agent_id: str
    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL of the agent's endpoint."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class ProxyTargets:
    """Finds the endpoint of a registered agent for the proxy."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    async def find(self, host: str, port: int) -> ProxyTarget | None:
        """Return the endpoint of a registered agent with this host and port; None if there is no such agent.

        An agent of any status is found. `host` is the announced host, the id or the name; of several agents with one
        name, a healthy one with the lowest id is preferred. The result is an announced endpoint, never the request's.
        """
        view, _ = await self._discovery.view(LATEST)
        record = view.records.get(host)
        if record is not None and (target := _target_of(record.agent)) is not None and target.port == port:
            return target
        announced_host, port_suffix, name_json = host.lower(), f":{port}", b'"name":%s' % orjson.dumps(host)
        named: list[tuple[bool, str, ProxyTarget]] = []
        async for record in cooperative(list(view.records.values())):
            agent = record.agent
            if port_suffix not in agent.indexed.endpoint and port not in _DEFAULT_PORTS.values():
                continue
            target = _target_of(agent)
            if target is None or target.port != port:
                continue
            if target.host == announced_host:
                return target
            if name_json in agent.spec and orjson.loads(agent.spec).get("name") == host:
                named.append((agent.status != "healthy", agent.id, target))
        return min(named, key=lambda each: each[:2])[2] if named else None


def _target_of(agent: Agent) -> ProxyTarget | None:
    """Return the endpoint of an agent as a proxy target; None if it is not an HTTP endpoint."""
    try:
        parts = urlsplit(agent.indexed.endpoint)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return ProxyTarget(agent.id, parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])
