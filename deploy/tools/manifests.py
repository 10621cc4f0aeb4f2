"""Writes what deploy/kubernetes holds from the chart, which is the one source: `make manifests`.

Helm itself renders, as a library: it installs the chart into a cluster that knows every kind, holds nothing, and
says yes to everything, for the library knows no other way.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml  # type: ignore[import-untyped]

DEPLOY_DIR = Path(__file__).parents[1]
CHART_DIR = DEPLOY_DIR / "chart"
KUBERNETES_DIR = DEPLOY_DIR / "kubernetes"
NAMESPACE = "mcp-mesh"

FILE_HEADER = "# Rendered from deploy/chart by `make manifests`. Change it there.\n"
# The kinds the chart may use, by their group and version; what ends in none of these is refused by helm.
KINDS_BY_GROUP_VERSION: Mapping[str, tuple[str, ...]] = {
    "v1": ("ConfigMap", "Namespace", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("StatefulSet",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob",),
    "monitoring.coreos.com/v1": ("PrometheusRule", "ServiceMonitor"),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}
_SOURCE_COMMENT = re.compile(r"^# Source: [^/]+/templates/(?P<room>\w+)/", re.MULTILINE)


class RenderError(Exception):
    """Helm does not take the chart with these values; its words."""


class FakeKubernetesApi(BaseHTTPRequestHandler):
    """An API server as far as helm asks: which kinds there are, what it looks for is not there, what comes is taken."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say which version and kinds there are; of all else, that it is not there."""
        path = self.path.partition("?")[0].strip("/")
        group = path.removeprefix("apis/").removeprefix("api/")
        if path == "version":
            self._send_json(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        elif path == "api":
            self._send_json(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "apis":
            self._send_json(
                200,
                {
                    "kind": "APIGroupList",
                    "groups": [_api_group(name) for name in KINDS_BY_GROUP_VERSION if "/" in name],
                },
            )
        elif group in KINDS_BY_GROUP_VERSION:
            self._send_json(200, {"kind": "APIResourceList", "groupVersion": group, "resources": _api_resources(group)})
        else:
            self._send_json(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

    def do_POST(self) -> None:
        """Take it."""
        # As it came: manifests are JSON, helm's own note of the release is not.
        self.send(201, self.rfile.read(int(self.headers["content-length"])), self.headers["content-type"])

    def do_PUT(self) -> None:
        """Likewise."""
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send_json(self, status: int, body: object) -> None:
        self.send(status, json.dumps(body).encode())

    def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """Answer."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _api_group(name: str) -> dict[str, Any]:
    version = {"groupVersion": name, "version": name.partition("/")[2]}
    return {"name": name.partition("/")[0], "versions": [version], "preferredVersion": version}


def _api_resources(group: str) -> list[dict[str, Any]]:
    plural = {"NetworkPolicy": "networkpolicies"}
    return [
        {
            "name": plural.get(kind, f"{kind.lower()}s"),
            "kind": kind,
            "namespaced": kind != "Namespace",
            "verbs": ["create", "get", "patch"],
        }
        for kind in KINDS_BY_GROUP_VERSION[group]
    ]


@contextlib.contextmanager
def fake_cluster(handler: type[FakeKubernetesApi] = FakeKubernetesApi) -> Iterator[str]:
    """Provide a kubeconfig that leads to one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        named = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
        users = [{"name": "nobody", "user": {}}]
        config = {"kind": "Config", "apiVersion": "v1", "clusters": [named], "contexts": [context], "users": users}
        yield yaml.safe_dump(config | {"current-context": "here"})
        server.shutdown()


def render(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what helm makes of the chart with these values, by the folder of its template: YAML of several documents.

    Raises Refused with helm's words, and ImportError where helm_sdkpy is not installed.
    """
    import helm_sdkpy  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: PLC0415 - only to render

    with fake_cluster() as kubeconfig, helm_sdkpy.Configuration(NAMESPACE, kubeconfig) as configuration:
        install = helm_sdkpy.Install(configuration).run(NAMESPACE, str(CHART_DIR), dict(values), wait=False)
        try:
            release = asyncio.run(install)
        except helm_sdkpy.HelmError as error:
            raise RenderError(str(error)) from error
    rooms: dict[str, str] = {}
    for document in release["manifest"].split("---\n")[1:]:
        found = _SOURCE_COMMENT.search(document)
        if found is None:
            raise RenderError(f"a template lies in no folder: {document[:80]}")
        text = document.partition("\n")[2].strip("\n")
        rooms[found["room"]] = f"{rooms.get(found['room'], '')}---\n{text}\n"
    return rooms


def lint() -> list[str]:
    """Return which files helm's own linter warns of or refuses. Raises ImportError as above."""
    import helm_sdkpy  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: PLC0415 - only to lint

    with fake_cluster() as kubeconfig, helm_sdkpy.Configuration(NAMESPACE, kubeconfig) as configuration:
        said = asyncio.run(helm_sdkpy.Lint(configuration).run(str(CHART_DIR)))
    return [message["Path"] for message in said["Messages"] if message["Severity"] > 1]


def read_values(name: str) -> dict[str, Any]:
    """Return a file of values beside the chart."""
    found: dict[str, Any] = yaml.safe_load((CHART_DIR / name).read_text(encoding="utf-8"))
    return found


def render_manifests() -> dict[Path, str]:
    """Return every rendered file of deploy/kubernetes, with its text."""
    everything = render({"autoscaling": {"enabled": True}, "monitoring": {"enabled": True}})
    ours = render({})
    files = {
        KUBERNETES_DIR / "base" / "registry.yaml": ours["registry"],
        KUBERNETES_DIR / "redis" / "redis.yaml": ours["redis"],
        KUBERNETES_DIR / "autoscaling" / "autoscaling.yaml": everything["autoscaling"],
        KUBERNETES_DIR / "monitoring" / "monitoring.yaml": everything["monitoring"],
        KUBERNETES_DIR / "dev" / "registry.yaml": render(read_values("values-dev.yaml"))["registry"],
    }
    return {path: FILE_HEADER + text for path, text in files.items()}


def main() -> int:
    """Write them all; 2 where helm is not there or does not like the chart."""
    try:
        found = render_manifests()
    except (ImportError, RenderError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
