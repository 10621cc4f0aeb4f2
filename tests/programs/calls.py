"""Calls the registry at the URL in the first argument with the token in the second one, by the standard library."""

import http.client
import sys
from urllib.parse import urlsplit

url, token = sys.argv[1:]


def call(method: str, path: str, body: str | None = None) -> None:
    """Send one request and print its status."""
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request(method, path, body, headers)
    sys.stdout.write(f"{method} {path} {connection.getresponse().status}\n")
    connection.close()


call("POST", "/agents", '{"id": "p", "endpoint": "http://p:1/mcp"}')
call("POST", "/heartbeat", '{"agent_id": "p"}')
call("GET", "/agents?status=healthy")
call("HEAD", "/heartbeat/p")
call("POST", "/admin/drain")
call("DELETE", "/admin/drain")
call("DELETE", "/agents/p")
