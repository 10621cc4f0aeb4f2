"""Commands of an operator, with the real kubectl: apply an overlay, and run the health check script.

There is no cluster: a fake API server stores the objects, starts no pods, and forwards requests for the Service to a
real replica.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.tools.manifests import DEPLOY_DIR, KUBERNETES_DIR, FakeKubernetesApi, fake_cluster
from tests.deploy.kubernetes_objects import KUBECTL, OVERLAYS, REGISTRY, by_kind_and_name, kubectl, overlay
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

SCRIPT = DEPLOY_DIR / "health_check.sh"
STATEFULSET_PATH = f"/apis/apps/v1/namespaces/mcp-mesh/statefulsets/{REGISTRY}"
PROXY_PATH = f"/api/v1/namespaces/mcp-mesh/services/http:{REGISTRY}:"


class FakeCluster:
    """The objects of a cluster by their API path, and the URL of each port of the Service."""

    def __init__(self, kubeconfig: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.ports: dict[str, str] = {}
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: object) -> str:
        """Run kubectl against this cluster."""
        return kubectl(*words, KUBECONFIG=str(self.kubeconfig), HOME=str(self.kubeconfig.parent))

    def set_replicas(self, ready: int, replicas: int = 3) -> None:
        """Set the numbers of replicas in the StatefulSet."""
        self.objects[STATEFULSET_PATH]["spec"]["replicas"] = replicas
        self.objects[STATEFULSET_PATH]["status"] = {"readyReplicas": ready, "updatedReplicas": replicas}

    def metrics(self) -> str:
        """Return the metrics of the replica behind the Service."""
        return httpx2.get(f"{self.ports['9090']}/metrics", timeout=REQUEST_TIMEOUT_S).text

    def run_health_check(self) -> tuple[int, str]:
        """Run the health check script; return its exit code and output."""
        environ = {
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.kubeconfig.parent),
            "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}",
        }
        result = subprocess.run([SCRIPT], env=environ, capture_output=True, check=False, text=True)
        return result.returncode, result.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Provide an empty cluster."""
    cluster = FakeCluster(tmp_path / "kubeconfig")
    with fake_cluster(_api_of(cluster)) as kubeconfig:
        cluster.kubeconfig.write_text(kubeconfig, encoding="utf-8")
        yield cluster


def _api_of(cluster: FakeCluster) -> type[FakeKubernetesApi]:
    class StoringApi(FakeKubernetesApi):
        def do_GET(self) -> None:  # noqa: N802
            path = self.path.partition("?")[0]
            if path in cluster.objects:
                self.send(200, json.dumps(cluster.objects[path]).encode())
            elif path.startswith(PROXY_PATH):
                self._proxy(*path.removeprefix(PROXY_PATH).split("/proxy", 1))
            else:
                super().do_GET()

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = f"{self.path.partition('?')[0]}/{body['metadata']['name']}"
            cluster.objects[path] = body
            cluster.order.append(body["kind"])
            self.send(201, json.dumps(body).encode())

        def _proxy(self, port: str, path: str) -> None:
            try:
                response = httpx2.get(
                    f"{cluster.ports[port]}{path}", headers={"accept": "*/*"}, timeout=REQUEST_TIMEOUT_S
                )
            except httpx2.TransportError:
                self.send(503, b'{"kind": "Status", "status": "Failure", "message": "no endpoints", "code": 503}')
                return
            self.send(response.status_code, response.content, response.headers["content-type"])

    return StoringApi


@pytest.mark.parametrize("name", OVERLAYS)
def test_one_command_applies_an_overlay(name: str, cluster: FakeCluster) -> None:
    """Kubectl has every kind, and creates the namespace and all objects that pods require before the pods."""
    cluster.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / name)

    assert by_kind_and_name(cluster.objects.values()).keys() == by_kind_and_name(overlay(name)).keys()
    assert cluster.order[0] == "Namespace"
    pods = min(cluster.order.index(kind) for kind in ("StatefulSet", "CronJob") if kind in cluster.order)
    for kind in ("ServiceAccount", "ConfigMap", "Secret", "Service"):
        assert all(at < pods for at, created in enumerate(cluster.order) if created == kind)


def test_the_health_check_passes_for_a_healthy_registry(cluster: FakeCluster) -> None:
    """All replicas are ready, one leads, there are metrics and no warnings: exit code 0."""
    port = str(free_port())
    cluster.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / "ha")
    cluster.set_replicas(3)
    # The script cannot send the token through the API server.
    settings = {"METRICS_PORT": port, "AUTH_TOKEN": "0123456789abcdef"}
    with RedisServer("--appendonly", "yes") as server, Replica(server.url, **settings) as replica:
        cluster.ports |= {"8080": replica.url, "9090": f"http://127.0.0.1:{port}"}
        wait_until(lambda: "mcp_registry_is_leader 1.0" in cluster.metrics(), description="the replica leads")
        exit_code, output = cluster.run_health_check()

    assert (exit_code, "ERROR" in output) == (0, False), output
    for line in ("3 of 3 replicas are ready", "there is a leader", "there are no warnings"):
        assert f"ok      {line}\n" in output


def test_the_health_check_reports_a_missing_leader_and_warnings(cluster: FakeCluster) -> None:
    """They come from the metrics; the reason why strangers may use the registry is shown by name."""
    port = str(free_port())
    cluster.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / "ha")
    cluster.set_replicas(3)
    settings = {"METRICS_PORT": port, "ENABLE_LEADER_ELECTION": "false", "REGISTRY_HOST": "0.0.0.0"}  # noqa: S104
    with RedisServer() as server, Replica(server.url, REGISTRY_OPEN="true", **settings) as replica:
        cluster.ports |= {"8080": replica.url, "9090": f"http://127.0.0.1:{port}"}
        exit_code, output = cluster.run_health_check()

    assert exit_code == 1
    for line in ("there is no leader", "there are warnings", "strangers may use the registry (open)"):
        assert f"ERROR   {line}" in output


def test_the_health_check_reports_each_problem(cluster: FakeCluster) -> None:
    """The cases are an empty cluster, too few replicas, and a Service that does not respond."""
    exit_code, output = cluster.run_health_check()
    assert (exit_code, output) == (1, f"ERROR   there is no StatefulSet {REGISTRY} in mcp-mesh\n")

    cluster.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / "ha")
    cluster.set_replicas(2)
    cluster.ports |= dict.fromkeys(("8080", "9090"), f"http://127.0.0.1:{free_port()}")
    exit_code, output = cluster.run_health_check()
    assert exit_code == 1
    assert "only 2 of 3 replicas are ready" in output
    assert "the Service does not respond" in output
    assert "there are no metrics on port 9090" in output
