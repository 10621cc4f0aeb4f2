"""`make manifests`: render deploy/kubernetes from the Helm chart, its only source.

Helm runs as a library, which can only install: it installs the chart into a fake cluster that has every kind, is empty,
and accepts every object.
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
# The kinds the chart may use, by group and version; helm rejects others.
KINDS_BY_GROUP_VERSION: Mapping[str, tuple[str, ...]] = {
    "v1": ("ConfigMap", "Namespace", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("StatefulSet",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob",),
    "monitoring.coreos.com/v1": ("PrometheusRule", "ServiceMonitor"),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}
_SOURCE_COMMENT = re.compile(r"^# Source: [^/]+/templates/(?P<folder>\w+)/", re.MULTILINE)


class RenderError(Exception):
    """Helm rejects the chart with these values; the message is helm's."""


class FakeKubernetesApi(BaseHTTPRequestHandler):
    """Fake Kubernetes API server for helm: it lists the kinds, finds no object, and accepts every object."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Return the version and the kinds; 404 for everything else."""
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
        """Accept an object."""
        # The body is returned unchanged: manifests are JSON, helm's record of the release is not.
        self.send(201, self.rfile.read(int(self.headers["content-length"])), self.headers["content-type"])

    def do_PUT(self) -> None:
        """Accept an object."""
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _send_json(self, status: int, body: object) -> None:
        self.send(status, json.dumps(body).encode())

    def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """Send a response."""
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
    """Run a fake cluster and provide its kubeconfig."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        named = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "anonymous"}}
        users = [{"name": "anonymous", "user": {}}]
        config = {"kind": "Config", "apiVersion": "v1", "clusters": [named], "contexts": [context], "users": users}
        yield yaml.safe_dump(config | {"current-context": "here"})
        server.shutdown()


def render(values: Mapping[str, Any]) -> dict[str, str]:
    """Render the chart with these values: YAML of several documents by the folder of the template.

    Raises RenderError, and ImportError if helm_sdkpy is not installed.
    """
    import helm_sdkpy  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: PLC0415 - only to render

    with fake_cluster() as kubeconfig, helm_sdkpy.Configuration(NAMESPACE, kubeconfig) as configuration:
        install = helm_sdkpy.Install(configuration).run(NAMESPACE, str(CHART_DIR), dict(values), wait=False)
        try:
            release = asyncio.run(install)
        except helm_sdkpy.HelmError as error:
            raise RenderError(str(error)) from error
    folders: dict[str, str] = {}
    for document in release["manifest"].split("---\n")[1:]:
        found = _SOURCE_COMMENT.search(document)
        if found is None:
            raise RenderError(f"template outside a folder: {document[:80]}")
        text = document.partition("\n")[2].strip("\n")
        folders[found["folder"]] = f"{folders.get(found['folder'], '')}---\n{text}\n"
    return folders


def lint() -> list[str]:
    """Return the files for which helm's linter has warnings or errors. Raises ImportError as above."""
    import helm_sdkpy  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: PLC0415 - only to lint

    with fake_cluster() as kubeconfig, helm_sdkpy.Configuration(NAMESPACE, kubeconfig) as configuration:
        result = asyncio.run(helm_sdkpy.Lint(configuration).run(str(CHART_DIR)))
    return [message["Path"] for message in result["Messages"] if message["Severity"] > 1]


def read_values(name: str) -> dict[str, Any]:
    """Return a values file of the chart."""
    found: dict[str, Any] = yaml.safe_load((CHART_DIR / name).read_text(encoding="utf-8"))
    return found


def render_manifests() -> dict[Path, str]:
    """Return every rendered file of deploy/kubernetes, with its text."""
    with_options = render({"autoscaling": {"enabled": True}, "monitoring": {"enabled": True}})
    defaults = render({})
    files = {
        KUBERNETES_DIR / "base" / "registry.yaml": defaults["registry"],
        KUBERNETES_DIR / "redis" / "redis.yaml": defaults["redis"],
        KUBERNETES_DIR / "autoscaling" / "autoscaling.yaml": with_options["autoscaling"],
        KUBERNETES_DIR / "monitoring" / "monitoring.yaml": with_options["monitoring"],
        KUBERNETES_DIR / "dev" / "registry.yaml": render(read_values("values-dev.yaml"))["registry"],
    }
    return {path: FILE_HEADER + text for path, text in files.items()}


def main() -> int:
    """Write all files; return 2 if helm is not installed or rejects the chart."""
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
