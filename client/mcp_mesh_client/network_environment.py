"""The proxy and the certificates that the environment sets for a URL, and HTTP clients that use them."""

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from mcp_mesh_client.errors import InvalidData

# The variables with which OpenSSL and Python find certificates and write keys.
_TLS_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that sets it. Its text contains no credentials."""

    url: str
    variable: str

    def __str__(self) -> str:
        try:
            parts = urlsplit(self.url)
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        except ValueError:
            shown = "URL"
        return f"proxy {shown} ({self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a URL, None if the environment sets none or NO_PROXY exempts the host."""
    # Heavy, and only the first call needs it.
    from urllib.request import getproxies  # noqa: PLC0415

    parts, proxies = urlsplit(url), getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None or _is_exempt(parts, proxies.get("no", "")):
        return None
    variable = next((name for name in os.environ if name.lower() == f"{kind}_proxy"), "the settings of the system")
    proxy = proxies[kind]
    return Proxy(proxy if "://" in proxy else f"http://{proxy}", variable)


def client_options(url: str, proxy: Proxy | None, *, may_redirect: bool = False) -> dict[str, Any]:
    """Return the options of an httpx2 client for a URL. Raises InvalidData that names the variable that is wrong.

    With `may_redirect` the server may redirect from http to https on its default ports.
    """
    import httpx2  # noqa: PLC0415 - takes longer than the import of the whole client

    schemes = {each.partition(":")[0].lower() for each in (url, proxy.url if proxy else "")}
    uses_tls = "https" in schemes or (may_redirect and urlsplit(url).port in (None, _DEFAULT_PORTS["http"]))
    options: dict[str, Any] = {
        "trust_env": False,
        # Without TLS no certificates are read. This context would accept no certificate.
        "verify": _default_context() if uses_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    }
    if proxy is None:
        return options
    try:
        # Of the transport only the check of the proxy is needed here: it opens no connection.
        httpx2.AsyncHTTPTransport(proxy=httpx2.Proxy(proxy.url), verify=options["verify"])
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        host = urlsplit(url).hostname
        raise InvalidData(
            proxy.variable, f"{proxy.variable}: {proxy} cannot be used: {error}; NO_PROXY={host} would exempt {host}"
        ) from error
    return options | {"proxy": proxy.url}


def _default_context() -> ssl.SSLContext:
    import httpx2  # noqa: PLC0415

    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        given = {name: value for name in _TLS_VARIABLES if (value := os.environ.get(name))}
        name = next((name for name, path in given.items() if not os.access(path, os.R_OK)), next(iter(given), None))
        if name is None:
            raise
        raise InvalidData(name, f"{name}: {given[name]} cannot be used: {error.strerror or error}") from error


def _is_exempt(url: SplitResult, no_proxy: str) -> bool:
    """Return whether NO_PROXY has the host of a URL: as a name, a domain, an address, a network, or `*`."""
    host = (url.hostname or "").lower()
    address = _parse_address(host)
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        name = entry.partition("://")[2] or entry
        if name == "*":
            return True
        if not name.startswith("[") and name.count(":") == 1:
            name, _, port = name.partition(":")
            if port != str(url.port or _DEFAULT_PORTS.get(url.scheme)):
                continue
        name = name.strip("[]")
        if address is not None:
            if _contains(name, address):
                return True
        elif name and (host == name.lstrip("*.") or host.endswith(f".{name.lstrip('*.')}")):
            return True
    return False


def _contains(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def describe(proxy: Proxy | None) -> str:
    """Return the words about a proxy in a message about a URL."""
    return "" if proxy is None else f" through the {proxy}"
