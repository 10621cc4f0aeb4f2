"""The chart: the one source of all manifests, and more than they show. Rendered by helm itself."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.tools.manifests import KUBERNETES_DIR, NAMESPACE, RenderError, lint, read_values, render, render_manifests
from registry.config.env import load_settings
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

OWN = {"redis": {"enabled": False, "url": "rediss://:$(REDIS_PASSWORD)@redis.example.com:6380", "ports": [6380]}}


def rendered(values: dict[str, Any]) -> list[KubernetesObject]:
    """Return the objects helm makes with these values, each valid."""
    objects: list[KubernetesObject] = [
        each for text in render(values).values() for each in yaml.safe_load_all(text) if each is not None
    ]
    for each in objects:
        if "monitoring" not in each["apiVersion"]:
            kubernetes_validate.validate(each, "1.37", strict=True)
    return objects


def test_what_is_checked_in_is_what_it_renders() -> None:
    """Else run `make manifests`."""
    assert {path: path.read_text(encoding="utf-8") for path in render_manifests()} == render_manifests()


@pytest.mark.parametrize(("name", "values"), [("ha", {}), ("dev", read_values("values-dev.yaml"))])
def test_an_overlay_brings_up_what_the_chart_does(name: str, values: dict[str, Any]) -> None:
    """All of it, and beside it only the namespace, which helm makes by --create-namespace."""
    both = by_kind_and_name(overlay(name))

    assert both.pop(("Namespace", NAMESPACE))
    assert both == by_kind_and_name(rendered(values))


def test_components_make_of_ha_what_their_values_do(tmp_path: Path) -> None:
    """An overlay of one's own with both of them, beside the chart with both on."""
    here = Path(os.path.relpath(KUBERNETES_DIR, tmp_path))
    ours = {"resources": [str(here / "ha")], "components": [str(here / "autoscaling"), str(here / "monitoring")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(ours), encoding="utf-8")

    both = by_kind_and_name(overlay(tmp_path))
    both.pop(("Namespace", NAMESPACE))
    assert both == by_kind_and_name(rendered({"autoscaling": {"enabled": True}, "monitoring": {"enabled": True}}))
    assert "replicas" not in both["StatefulSet", REGISTRY]["spec"]


def test_a_redis_of_ones_own_takes_the_place_of_ours() -> None:
    """Nothing of ours is left, and replicas may reach the other one."""
    objects = rendered(OWN)
    settings, _ = load_settings(
        container_environment(objects, registry_container(objects), {"AUTH_TOKEN": "t", "REDIS_PASSWORD": "p"})
    )

    assert REDIS not in {each["metadata"]["name"] for each in objects}
    assert settings.redis_url == "rediss://:p@redis.example.com:6380"
    egress = find_object(objects, "NetworkPolicy", REGISTRY)["spec"]["egress"]
    assert {"ports": [{"port": 6380}]} in egress


def test_replicas_that_share_nothing_are_refused() -> None:
    """Three embedded stores would be three registries."""
    with pytest.raises(RenderError, match="more than one replica needs a Redis"):
        render({"redis": {"enabled": False}})
    with pytest.raises(RenderError, match="more than one replica needs a Redis"):
        render(read_values("values-dev.yaml") | {"autoscaling": {"enabled": True}})


def test_other_settings_are_other_pods() -> None:
    """They are read once, at start."""
    before, after = (
        find_object(rendered({"config": config}), "StatefulSet", REGISTRY)["spec"]["template"]["metadata"][
            "annotations"
        ]
        for config in ({}, {"AGENT_TIMEOUT": "90s"})
    )

    assert before.keys() == after.keys()
    assert before != after


def test_a_secret_is_made_only_on_request() -> None:
    """And then needs a token."""
    secret = find_object(
        rendered({"secret": {"create": True, "authToken": "a", "redisPassword": "0f"}}), "Secret", "mcp-registry-secret"
    )

    assert secret["stringData"] == {"AUTH_TOKEN": "a", "REDIS_PASSWORD": "0f"}
    with pytest.raises(RenderError, match=r"needs secret\.authToken"):
        render({"secret": {"create": True}})
    with pytest.raises(RenderError, match=r"needs secret\.redisPassword"):
        render({"secret": {"create": True, "authToken": "a"}})


def test_helm_finds_nothing_to_say_against_it() -> None:
    """Its own linter."""
    assert lint() == []
