"""The Helm chart, the only source of all manifests, rendered by helm itself."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.tools.manifests import KUBERNETES_DIR, NAMESPACE, RenderError, lint, read_values, render, render_manifests
from registry.config.env import load_settings
from registry.config.exposure import find_missing_credential
from tests.deploy.kubernetes_objects import (
    REDIS,
    REGISTRY,
    KubernetesObject,
    by_kind_and_name,
    container_environment,
    find_object,
    overlay,
    registry_container,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("helm_sdkpy") is None, reason="helm is not installed as a library"
)

EXTERNAL_REDIS = {
    "redis": {"enabled": False, "url": "rediss://:$(REDIS_PASSWORD)@redis.example.com:6380", "ports": [6380]}
}


def render_objects(values: dict[str, Any]) -> list[KubernetesObject]:
    """Return the objects of the chart with these values, each valid."""
    objects: list[KubernetesObject] = [
        each for text in render(values).values() for each in yaml.safe_load_all(text) if each is not None
    ]
    for each in objects:
        if "monitoring" not in each["apiVersion"]:
            kubernetes_validate.validate(each, "1.37", strict=True)
    return objects


def test_the_manifests_in_the_repository_are_up_to_date() -> None:
    """If this fails, run `make manifests`."""
    assert {path: path.read_text(encoding="utf-8") for path in render_manifests()} == render_manifests()


@pytest.mark.parametrize(("name", "values"), [("ha", {}), ("dev", read_values("values-dev.yaml"))])
def test_an_overlay_contains_the_objects_of_the_chart(name: str, values: dict[str, Any]) -> None:
    """It also contains the namespace, which helm creates with --create-namespace."""
    objects = by_kind_and_name(overlay(name))

    assert objects.pop(("Namespace", NAMESPACE))
    assert objects == by_kind_and_name(render_objects(values))


def test_ha_with_both_components_equals_the_chart_with_both_values(tmp_path: Path) -> None:
    """The components are autoscaling and monitoring."""
    kubernetes = Path(os.path.relpath(KUBERNETES_DIR, tmp_path))
    kustomization = {
        "resources": [str(kubernetes / "ha")],
        "components": [str(kubernetes / "autoscaling"), str(kubernetes / "monitoring")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")

    objects = by_kind_and_name(overlay(tmp_path))
    objects.pop(("Namespace", NAMESPACE))
    assert objects == by_kind_and_name(
        render_objects({"autoscaling": {"enabled": True}, "monitoring": {"enabled": True}})
    )
    assert "replicas" not in objects["StatefulSet", REGISTRY]["spec"]


def test_an_external_redis_replaces_the_redis_of_the_chart() -> None:
    """No object of that Redis is left, and the network policy allows the external one."""
    objects = render_objects(EXTERNAL_REDIS)
    settings, _ = load_settings(
        container_environment(objects, registry_container(objects), {"AUTH_TOKEN": "t", "REDIS_PASSWORD": "p"})
    )

    assert REDIS not in {each["metadata"]["name"] for each in objects}
    assert settings.redis_url == "rediss://:p@redis.example.com:6380"
    egress = find_object(objects, "NetworkPolicy", REGISTRY)["spec"]["egress"]
    assert {"ports": [{"port": 6380}]} in egress


def test_a_port_for_admin_is_reachable_for_operators_only() -> None:
    """Without `operators` the network policy allows no peer, which leaves `kubectl port-forward`."""
    operators = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}]
    config = {"REGISTRY_ADMIN_PORT": "8081"}
    for peers in ([], operators):
        objects = render_objects({"config": config, "networkPolicy": {"operators": peers}})
        settings, _ = load_settings(
            container_environment(objects, registry_container(objects), {"AUTH_TOKEN": "t", "REDIS_PASSWORD": "p"})
        )
        ports = {port["name"]: port["containerPort"] for port in registry_container(objects)["ports"]}
        served = {port["name"]: port["port"] for port in find_object(objects, "Service", REGISTRY)["spec"]["ports"]}
        ingress = find_object(objects, "NetworkPolicy", REGISTRY)["spec"]["ingress"]

        assert settings.admin_port == ports["admin"] == served["admin"] == 8081
        assert [rule["from"] for rule in ingress if {"port": "admin"} in rule["ports"]] == ([peers] if peers else [])


def test_several_replicas_without_redis_are_rejected() -> None:
    """Three embedded stores would be three registries."""
    with pytest.raises(RenderError, match="more than one replica needs a Redis"):
        render({"redis": {"enabled": False}})
    with pytest.raises(RenderError, match="more than one replica needs a Redis"):
        render(read_values("values-dev.yaml") | {"autoscaling": {"enabled": True}})


def test_changed_settings_replace_the_pods() -> None:
    """A replica reads its settings only at start."""
    before, after = (
        find_object(render_objects({"config": config}), "StatefulSet", REGISTRY)["spec"]["template"]["metadata"][
            "annotations"
        ]
        for config in ({}, {"AGENT_TIMEOUT": "90s"})
    )

    assert before.keys() == after.keys()
    assert before != after


def test_a_secret_is_created_only_on_request() -> None:
    """It requires a token, and a password if there is a Redis."""
    secret = find_object(
        render_objects({"secret": {"create": True, "authToken": "a", "redisPassword": "0f"}}),
        "Secret",
        "mcp-registry-secret",
    )

    assert secret["stringData"] == {"AUTH_TOKEN": "a", "REDIS_PASSWORD": "0f"}
    with pytest.raises(RenderError, match=r"needs secret\.authToken"):
        render({"secret": {"create": True}})
    with pytest.raises(RenderError, match=r"needs secret\.redisPassword"):
        render({"secret": {"create": True, "authToken": "a"}})


def test_t21_a_registry_without_a_token_is_open_by_a_setting_only() -> None:
    """Without it the process would not start; the Secret is optional with it."""
    values = read_values("values-dev.yaml") | {"secret": {"create": False}}

    for config, problems in (({}, {"open"}), ({"REGISTRY_OPEN": "true"}, set())):
        objects = render_objects(values | {"config": values["config"] | config})
        container = registry_container(objects)
        assert [each["secretRef"].get("optional", False) for each in container["envFrom"] if "secretRef" in each] == [
            not problems
        ]
        settings, _ = load_settings(container_environment(objects, container, {}))
        assert find_missing_credential(settings, ()).keys() == problems
    secret = {"create": True, "redisPassword": "0f"}
    assert find_object(
        render_objects({"secret": secret, "config": {"REGISTRY_OPEN": "true"}}), "Secret", "mcp-registry-secret"
    )["stringData"] == {"AUTH_TOKEN": "", "REDIS_PASSWORD": "0f"}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, set()),
        ({"REGISTRY_OPEN": "true"}, {"mcp-mesh-registry"}),
        ({"REGISTRY_HOSTNAMES": "registry.example"}, {"mcp-mesh-registry", "registry.example"}),
    ],
)
def test_t3_the_chart_names_its_services_only_if_names_are_required(config: dict[str, str], names: set[str]) -> None:
    """With names in the settings even a caller with the token has to use one."""
    values = read_values("values-dev.yaml")
    objects = render_objects(values | {"config": values["config"] | config})
    settings, _ = load_settings(container_environment(objects, registry_container(objects), {}))
    assert names <= set(settings.hostnames)
    assert bool(names) == bool(settings.hostnames)


def test_the_linter_of_helm_has_no_warnings() -> None:
    """It has no errors either."""
    assert lint() == []
