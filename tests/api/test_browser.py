"""Web pages in a real browser: a page of another site writes and reads nothing, an allowed one works."""

import asyncio
import contextlib
import json
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from tests.support.child_process import ChildProcess
from tests.support.fake_agent import ReceivedRequest, fake_agent
from tests.support.http_calls import REQUEST_TIMEOUT_S, list_agent_ids, register
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.served_registry import served_registry

# What an outcome begins with if a page has read something.
_READABLE = re.compile(r'[23]\d\d|opened|registered|loaded$|.*"(?:agents|openapi|endpoints|id)":')
_REQUESTS = re.compile(
    r'^mcp_registry_requests_total\{method="(\w+)",route="[^"]*",status="(\d+)"\} (\S+)', re.MULTILINE
)
FOLDER = Path(__file__).parent / "browser"
CHROMIUM_PATH = shutil.which("chromium") or shutil.which("google-chrome")
# All names below .test resolve to loopback, so the browser does not ask the user, as for a public page.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP *.test 127.0.0.1", "--remote-debugging-port=0"),
)
needs_chromium = pytest.mark.skipif(CHROMIUM_PATH is None, reason="chromium is not installed; apt-get install chromium")


class WebSite:
    """A web site with page.html; requests to its other paths reach the registry, as if its name were rebound to it."""

    def __init__(self, registry_url: str) -> None:
        self._registry_url = registry_url
        self.outcomes: dict[str, str] = {}

    async def reply(self, request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        """Send the page or its worker, store its outcomes, or forward the request to the registry."""
        path = request.path.partition("?")[0]
        status, media_type, body = 200, "text/plain", b""
        if path in ("/page.html", "/worker.js"):
            media_type = "text/html" if path == "/page.html" else "text/javascript"
            body = (FOLDER / path[1:]).read_bytes()
        elif path == "/outcomes":
            self.outcomes = json.loads(request.body)
        else:
            async with httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
                response = await client.request(
                    request.method, self._registry_url + request.path, headers=request.headers, content=request.body
                )
            status, media_type, body = response.status_code, response.headers.get("content-type", ""), response.content
        head = f"HTTP/1.1 {status} OK\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + (b"" if request.method == "HEAD" else body))


@contextlib.asynccontextmanager
async def visit(registry_url: str, site: str, port: int, folder: Path, **query: str) -> AsyncIterator[dict[str, str]]:
    """Open the page of a site in the browser; provide the outcome of each of its calls."""
    assert CHROMIUM_PATH is not None
    web_site = WebSite(registry_url)
    url = f"http://{site}:{port}/page.html?{urlencode({'registry': registry_url} | query)}"
    async with fake_agent(web_site.reply, port=port):
        with ChildProcess(CHROMIUM_PATH, *FLAGS, f"--user-data-dir={folder}", url):
            await async_wait_until(lambda: web_site.outcomes, description="the page has called the registry")
            yield web_site.outcomes


async def request_counts(client: httpx2.AsyncClient) -> Counter[str]:
    """Return the number of responses by method and status, such as `POST 200`."""
    text = (await client.get("/metrics/prometheus")).text
    found: Counter[str] = Counter()
    for method, status, count in _REQUESTS.findall(text):
        found[f"{method} {status}"] += int(float(count))
    return found


@needs_chromium
@pytest.mark.parametrize(("site", "tasks"), [("evil.test", "attack,rebind"), ("localhost", "attack")])
async def test_t3_a_page_of_another_site_writes_and_reads_nothing(
    redis_url: str, tmp_path: Path, site: str, tasks: str
) -> None:
    """With a Blob, text, forms, HEAD, an iframe, an image, a service worker, an EventSource and a rebound name.

    The page on localhost is on the same site, at another port, and in a secure context, so it has a service worker.
    """
    async with served_registry(redis_url, proxy=True) as served, fake_agent() as agent:
        await register(served.client, "victim", endpoint=f"http://127.0.0.1:{agent.port}/mcp")
        before = (await served.client.get("/agents")).json()
        before_counts = await request_counts(served.client)

        url = served.url.replace("127.0.0.1", "localhost")
        proxy = f"/proxy/127.0.0.1:{agent.port}/mcp"
        async with visit(url, site, free_port(), tmp_path, proxy=proxy, tasks=tasks) as outcomes:

            async def all_arrived() -> bool:
                # Seven writes in seven ways each, of which the page does not await all.
                counts = await request_counts(served.client) - before_counts
                return sum(count for name, count in counts.items() if name.startswith("POST")) >= 49

            await async_wait_until(all_arrived, description="every write has reached the registry")
        after = (await served.client.get("/agents")).json()
        counts = await request_counts(served.client)
    readable = {name: text for name, text in outcomes.items() if _READABLE.match(text)}
    assert readable == {}
    assert agent.requests == []
    assert after["agents"] == before["agents"]
    assert after["resource_version"] == before["resource_version"]
    # Only the requests of this test have succeeded: none of the page, not even one without a visible effect.
    succeeded = {name: count for name, count in (counts - before_counts).items() if name.endswith((" 200", " 202"))}
    assert succeeded.keys() == {"GET 200"}
    assert counts["HEAD 200"] == 0


@needs_chromium
async def test_an_allowed_page_works(redis_url: str, tmp_path: Path) -> None:
    """It reads and writes, also with requests that need a preflight, and reads headers and streams."""
    port = free_port()
    async with served_registry(redis_url, origins=(f"http://tools.test:{port}",)) as served:
        await register(served.client, "victim")
        async with visit(served.url, "tools.test", port, tmp_path, proxy="", tasks="use") as outcomes:
            assert await list_agent_ids(served.client) == ["allowed"]

    assert {name: text[:3] for name, text in outcomes.items() if text[:3].isdigit()} == dict.fromkeys(
        ("register", "list", "mcp", "delete"), "200"
    )
    assert (outcomes["events"], outcomes["request id"]) == ("opened", "of-the-page")
