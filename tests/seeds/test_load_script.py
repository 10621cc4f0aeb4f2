"""The load test of the deployment guide passes unchanged, and its configuration starts a replica."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.seeds.code_blocks import DOCUMENTS_DIR
from tests.support.http_calls import (
    JSON_HEADERS,
    REQUEST_TIMEOUT_S,
    a_registration,
    expect_error,
    expect_success,
    list_agent_ids,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.ports import free_port
from tests.support.replica import Replica

SCRIPT = (DOCUMENTS_DIR / "load_test.py.txt").read_text(encoding="utf-8")
GUIDE_URL = "http://localhost:8080"
# The ConfigMap and the Secret of the guide: every `NAME: "value"`.
CONFIGURATION = dict(
    re.findall(
        r'^  ([A-Z_]+): "([^"]*)"', (DOCUMENTS_DIR / "registry-config.yaml").read_text(encoding="utf-8"), re.MULTILINE
    )
)


async def test_the_load_test_passes_with_only_its_url_changed(redis_url: str, tmp_path: Path) -> None:
    """100 agents register concurrently on one of three replicas: all succeed, and every replica lists them."""
    script = tmp_path / "test_registry_load.py"
    assert SCRIPT.count(GUIDE_URL) == 1
    with Replica(redis_url) as one, Replica(redis_url) as two, Replica(redis_url) as three:
        script.write_text(SCRIPT.replace(GUIDE_URL, one.url), encoding="utf-8")

        process = await asyncio.to_thread(_run, script)

        for replica in (one, two, three):
            async with httpx2.AsyncClient(base_url=f"{replica.url}/api/v1", timeout=REQUEST_TIMEOUT_S) as client:
                assert await list_agent_ids(client) == sorted(f"test-agent-{n}" for n in range(100))
    assert process.returncode == 0, process.stderr
    assert re.search(r"^Registered 100 agents in \d+\.\d\ds$", process.stdout, re.MULTILINE)
    assert "Success rate: 100.0%" in process.stdout


def _run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script], capture_output=True, check=False, text=True)


async def test_the_configuration_of_the_guide_starts_a_replica(redis_url: str) -> None:
    """Each of its names is a setting or causes a warning; the token is required, and shown nowhere."""
    assert CONFIGURATION.keys() >= {"REGISTRY_PORT", "METRICS_PORT", "AUTH_TOKEN", "ENCRYPTION_KEY", "DATABASE_TYPE"}
    port = str(free_port())
    settings = CONFIGURATION | {"REGISTRY_PORT": "0", "METRICS_PORT": port}
    with Replica(redis_url, **settings) as replica:
        async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
            token = {"authorization": f"Bearer {CONFIGURATION['AUTH_TOKEN']}"}
            for path in ("/health", "/ready"):
                assert (await client.get(path)).status_code == 200
            expect_error(await client.get("/api/v1/agents"), 401, "unauthorized")
            expect_success(await client.post("/api/v1/agents", json=a_registration(), headers=token))
            for path in ("/api/v1/agents", "/api/v1/capabilities"):
                assert (await client.get(path, headers=token)).status_code == 200
            warnings = " ".join((await client.get("/health", headers=token)).json()["warnings"])
        scraped = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=REQUEST_TIMEOUT_S).text
        log = replica.output

    assert "DATABASE_PATH, DATABASE_TYPE: the store is Redis" in warnings
    assert "ENCRYPTION_KEY is set, but it is not used yet" in warnings
    for name in ("mcp_registry_agents_total", "mcp_registry_requests_total", "mcp_registry_errors_total"):
        assert re.search(rf"^{name}\b", scraped, re.MULTILINE)
    for secret in ("AUTH_TOKEN", "ENCRYPTION_KEY"):
        assert CONFIGURATION[secret] not in log + warnings


def test_the_embedded_redis_stores_its_data_in_the_database_path_of_the_guide(tmp_path: Path) -> None:
    """The directory of DATABASE_PATH, if no other setting names one."""
    with Replica(DATABASE_TYPE="sqlite", DATABASE_PATH=str(tmp_path / "data" / "registry.db")) as replica:
        response = httpx2.post(
            f"{replica.url}/agents", json=a_registration(), headers=JSON_HEADERS, timeout=REQUEST_TIMEOUT_S
        )
        assert response.status_code == 200

    assert (tmp_path / "data" / "appendonlydir").is_dir()


@pytest.mark.parametrize("url", ["/health", "/ready", "/metrics", "/api/v1/agents", "/api/v1/capabilities"])
async def test_every_path_of_the_guide_exists(redis_url: str, url: str) -> None:
    """The paths of its probes and of its curl commands."""
    async with in_process_registry(redis_url) as client:
        assert (await client.get(url)).status_code == 200
