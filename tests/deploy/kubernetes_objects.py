"""The objects of deploy/kubernetes, parsed by kubectl."""

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
    """Return the output of kubectl. Raises AssertionError with its error message."""
    result = subprocess.run([str(KUBECTL), *map(str, words)], env=environ, capture_output=True, check=False, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@cache
def overlay(name: str | Path) -> tuple[KubernetesObject, ...]:
    """Return the objects of an overlay in the order of kubectl. They are shared: do not change them."""
    return tuple(yaml.safe_load_all(kubectl("kustomize", KUBERNETES_DIR / name)))


def find_object(objects: Iterable[KubernetesObject], kind: str, name: str) -> KubernetesObject:
    """Return the object with this kind and name."""
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def by_kind_and_name(objects: Iterable[KubernetesObject]) -> dict[tuple[str, str], KubernetesObject]:
    """Return objects by kind and name. Raises AssertionError if two have the same."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len([*objects])
    return found


def pod_templates(objects: Iterable[KubernetesObject]) -> Iterator[tuple[str, KubernetesObject]]:
    """Yield each pod template with the name of its owner."""
    for each in objects:
        if each["kind"] == "StatefulSet":
            yield each["metadata"]["name"], each["spec"]["template"]
        elif each["kind"] == "CronJob":
            yield each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]


def containers(objects: Iterable[KubernetesObject]) -> Iterator[tuple[KubernetesObject, KubernetesObject]]:
    """Yield each container with its pod template."""
    for _, template in pod_templates(objects):
        yield from ((template, container) for container in template["spec"]["containers"])


def registry_container(objects: Iterable[KubernetesObject]) -> KubernetesObject:
    """Return the container of a registry pod."""
    (found,) = find_object(objects, "StatefulSet", REGISTRY)["spec"]["template"]["spec"]["containers"]
    container: KubernetesObject = found
    return container


def container_environment(
    objects: Iterable[KubernetesObject], container: KubernetesObject, secrets: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a container in the pod mcp-mesh-registry-0; `secrets` are the values of the Secret.

    Follows the rules of the kubelet: whole ConfigMaps and Secrets first, then single variables, which can refer only to
    earlier single variables.
    """
    environ: dict[str, str] = {}
    for source in container.get("envFrom", []):
        whole = secrets
        if "configMapRef" in source:
            whole = find_object(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        environ |= whole
    fields = {"metadata.name": f"{REGISTRY}-0", "status.podIP": "10.1.2.3"}
    variables: dict[str, str] = {}
    for variable in container["env"]:
        value = variable.get("value", "")
        origin = variable.get("valueFrom", {})
        if "fieldRef" in origin:
            value = fields[origin["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in origin:
            value = secrets[origin["secretKeyRef"]["key"]]
        for name, earlier in variables.items():
            value = value.replace(f"$({name})", earlier)
        variables[variable["name"]] = value
    return environ | variables


def selector_matches(selector: Mapping[str, str], template: KubernetesObject) -> bool:
    """Return whether a pod of this template has all these labels."""
    labels: dict[str, str] = template["metadata"]["labels"]
    return selector.items() <= labels.items()
