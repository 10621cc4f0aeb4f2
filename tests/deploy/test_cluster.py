"""What an operator types, with the real kubectl: the overlays are applied, and the script looks after the registry.

No cluster is here: what answers kubectl keeps what it is given, starts nothing, and leads what is meant for the Service
to a real replica.
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
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

SCRIPT = DEPLOY_DIR / "health_check.sh"
STATEFUL = f"/apis/apps/v1/namespaces/mcp-mesh/statefulsets/{REGISTRY}"
PROXY = f"/api/v1/namespaces/mcp-mesh/services/http:{REGISTRY}:"


class Kept:
    """What the cluster holds, by the path it is read at, and where the ports of the Service lead to."""

    def __init__(self, kubeconfig: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.ports: dict[str, str] = {}
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: object) -> str:
        """Run kubectl on this cluster."""
        return kubectl(*words, KUBECONFIG=str(self.kubeconfig), HOME=str(self.kubeconfig.parent))

    def count(self, ready: int, replicas: int = 3) -> None:
        """Let the StatefulSet have so many ready replicas."""
        self.objects[STATEFUL]["spec"]["replicas"] = replicas
        self.objects[STATEFUL]["status"] = {"readyReplicas": ready, "updatedReplicas": replicas}

    def check(self) -> tuple[int, str]:
        """Run the script; return its status and what it says."""
        environ = {
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.kubeconfig.parent),
            "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}",
        }
        ran = subprocess.run([SCRIPT], env=environ, capture_output=True, check=False, timeout=60, text=True)
        return ran.returncode, ran.stdout


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """Provide an empty cluster."""
    found = Kept(tmp_path / "kubeconfig")
    with fake_cluster(_keeping(found)) as kubeconfig:
        found.kubeconfig.write_text(kubeconfig, encoding="utf-8")
        yield found


def _keeping(kept: Kept) -> type[FakeKubernetesApi]:
    class Keeping(FakeKubernetesApi):
        def do_GET(self) -> None:  # noqa: N802
            path = self.path.partition("?")[0]
            if path in kept.objects:
                self.send(200, json.dumps(kept.objects[path]).encode())
            elif path.startswith(PROXY):
                self._proxy(*path.removeprefix(PROXY).split("/proxy", 1))
            else:
                super().do_GET()

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = f"{self.path.partition('?')[0]}/{body['metadata']['name']}"
            kept.objects[path] = body
            kept.order.append(body["kind"])
            self.send(201, json.dumps(body).encode())

        def _proxy(self, port: str, path: str) -> None:
            try:
                answer = httpx2.get(f"{kept.ports[port]}{path}", headers={"accept": "*/*"})
            except httpx2.TransportError:
                self.send(503, b'{"kind": "Status", "status": "Failure", "message": "no endpoints", "code": 503}')
                return
            self.send(answer.status_code, answer.content, answer.headers["content-type"])

    return Keeping


@pytest.mark.parametrize("name", OVERLAYS)
def test_one_command_applies_an_overlay(name: str, kept: Kept) -> None:
    """All its kinds are known to kubectl, which makes the namespace and what pods need before the pods."""
    kept.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / name)

    assert by_kind_and_name(kept.objects.values()).keys() == by_kind_and_name(overlay(name)).keys()
    assert kept.order[0] == "Namespace"
    pods = min(kept.order.index(kind) for kind in ("StatefulSet", "CronJob") if kind in kept.order)
    for kind in ("ServiceAccount", "ConfigMap", "Secret", "Service"):
        assert all(at < pods for at, found in enumerate(kept.order) if found == kind)


def test_the_script_finds_nothing_wrong_with_a_sound_registry(kept: Kept) -> None:
    """Three of three ready, a leader, metrics, no warning: status 0."""
    port = str(free_port())
    kept.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / "ha")
    kept.count(3)
    with RedisServer("--appendonly", "yes") as server, Replica(server.url, METRICS_PORT=port) as replica:
        kept.ports |= {"8080": replica.url, "9090": f"http://127.0.0.1:{port}"}
        wait_until(lambda: httpx2.get(f"{replica.url}/health").json()["leader"]["leading"], description="it leads")
        status, said = kept.check()

    assert (status, "3 of 3 replicas are ready" in said, "ERROR" in said) == (0, True, False), said


def test_the_script_names_what_is_wrong(kept: Kept) -> None:
    """Nothing applied; too few replicas; nobody who answers."""
    status, said = kept.check()
    assert (status, said) == (1, f"ERROR   there is no StatefulSet {REGISTRY} in mcp-mesh\n")

    kept.kubectl("apply", "--validate=false", "-k", KUBERNETES_DIR / "ha")
    kept.count(2)
    kept.ports |= dict.fromkeys(("8080", "9090"), f"http://127.0.0.1:{free_port()}")
    status, said = kept.check()
    assert status == 1
    assert "only 2 of 3 replicas are ready" in said
    assert "the Service does not answer" in said
    assert "there are no metrics on port 9090" in said
