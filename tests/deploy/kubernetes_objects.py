"""What deploy/kubernetes brings up, as kubectl itself reads it."""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deploy.tools.manifests import KUBERNETES_DIR

KubernetesObject = dict[str, Any]

KUBECTL = Path(sys.executable).parent / "kubectl"
OVERLAYS = ("ha", "dev", "minikube")
REGISTRY, REDIS = "mcp-mesh-registry", "mcp-mesh-redis"


def kubectl(*words: object, **environ: str) -> str:
    """Return what kubectl prints. AssertionError with its complaint when it has one."""
    ran = subprocess.run(
        [str(KUBECTL), *map(str, words)], env=environ, capture_output=True, check=False, timeout=30, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@cache
def overlay(name: str | Path) -> tuple[KubernetesObject, ...]:
    """Return the objects of an overlay, in the order kubectl applies them. They are shared: leave them as they are."""
    return tuple(yaml.safe_load_all(kubectl("kustomize", KUBERNETES_DIR / name)))


def find_object(objects: Iterable[KubernetesObject], kind: str, name: str) -> KubernetesObject:
    """Return the object of this kind and name."""
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def by_kind_and_name(objects: Iterable[KubernetesObject]) -> dict[tuple[str, str], KubernetesObject]:
    """Return objects by kind and name; AssertionError when two have both in common."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len([*objects])
    return found


def pod_templates(objects: Iterable[KubernetesObject]) -> Iterator[tuple[str, KubernetesObject]]:
    """Yield the template of every kind of pod that is started, with the name of what starts it."""
    for each in objects:
        if each["kind"] == "StatefulSet":
            yield each["metadata"]["name"], each["spec"]["template"]
        elif each["kind"] == "CronJob":
            yield each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]


def containers(objects: Iterable[KubernetesObject]) -> Iterator[tuple[KubernetesObject, KubernetesObject]]:
    """Yield every container with the template of its pod."""
    for _, template in pod_templates(objects):
        yield from ((template, container) for container in template["spec"]["containers"])


def registry_container(objects: Iterable[KubernetesObject]) -> KubernetesObject:
    """Return the container of the registry."""
    (found,) = find_object(objects, "StatefulSet", REGISTRY)["spec"]["template"]["spec"]["containers"]
    container: KubernetesObject = found
    return container


def container_environment(
    objects: Iterable[KubernetesObject], container: KubernetesObject, secrets: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment a container gets in the pod mcp-mesh-registry-0; `secrets` are what is in the Secret.

    As the kubelet does it: what comes from whole objects first, then the variables, of which later ones may name
    earlier ones, and only these.
    """
    environ: dict[str, str] = {}
    for source in container.get("envFrom", []):
        whole = secrets
        if "configMapRef" in source:
            whole = find_object(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        environ |= whole
    fields = {"metadata.name": f"{REGISTRY}-0", "status.podIP": "10.1.2.3"}
    said: dict[str, str] = {}
    for variable in container["env"]:
        value = variable.get("value", "")
        origin = variable.get("valueFrom", {})
        if "fieldRef" in origin:
            value = fields[origin["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in origin:
            value = secrets[origin["secretKeyRef"]["key"]]
        for name, known in said.items():
            value = value.replace(f"$({name})", known)
        said[variable["name"]] = value
    return environ | said


def selector_matches(selector: Mapping[str, str], template: KubernetesObject) -> bool:
    """Tell whether a pod of this template has all these labels."""
    labels: dict[str, str] = template["metadata"]["labels"]
    return selector.items() <= labels.items()
