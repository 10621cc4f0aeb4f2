"""deploy/kubernetes: valid objects with the guide's names, safe pods, and settings that the registry accepts."""

import shlex
from itertools import pairwise

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner

from registry.cli.main import main
from registry.config.env import load_settings
from registry.config.exposure import find_missing_credential
from registry.config.redis_url import parse_redis_url
from registry.config.settings import SETTINGS, Settings
from registry.store.embedded.server import SERVER_ARGUMENTS
from tests.deploy.compose_files import compose_service, dockerfile_stages, service_environment
from tests.deploy.kubernetes_objects import (
    OVERLAYS,
    REDIS,
    REGISTRY,
    container_environment,
    containers,
    find_object,
    overlay,
    pod_templates,
    registry_container,
    selector_matches,
)
from tests.deploy.redis_hosts import START_SCRIPT
from tests.support.endpoints import all_endpoints
from tests.support.replica import SHUTDOWN_S

SECRETS = {"AUTH_TOKEN": "a-token", "REDIS_PASSWORD": "0f1e"}
# The oldest version with every kind and field in use, and the newest one with a schema.
VERSIONS = ("1.27", "1.37")

overlays = pytest.mark.parametrize("name", OVERLAYS)


def settings_of(name: str) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings of a replica in this overlay, and their warnings.

    The dev overlays contain their Secret, which has no password of Redis; the others expect one that the operator made.
    """
    objects = overlay(name)
    own_secrets = [each["stringData"] for each in objects if each["kind"] == "Secret"]
    return load_settings(
        container_environment(objects, registry_container(objects), own_secrets[0] if own_secrets else SECRETS),
        [find_missing_credential],
    )


@overlays
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_them(name: str, version: str) -> None:
    """Each object matches the schema of its kind, without additional fields."""
    for each in overlay(name):
        kubernetes_validate.validate(each, version, strict=True)


@overlays
def test_they_have_the_names_of_the_guide(name: str) -> None:
    """They also have its labels and ports, so that its commands work."""
    objects = overlay(name)
    found = {(each["kind"], each["metadata"]["name"]) for each in objects}

    assert all(each["metadata"]["namespace"] == "mcp-mesh" for each in objects if each["kind"] != "Namespace")
    assert found >= {
        ("Namespace", "mcp-mesh"),
        ("ServiceAccount", REGISTRY),
        ("ConfigMap", "mcp-registry-config"),
        ("Service", f"{REGISTRY}-headless"),
        ("Service", REGISTRY),
        ("StatefulSet", REGISTRY),
    }
    labels = find_object(objects, "StatefulSet", REGISTRY)["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= {"app.kubernetes.io/name": REGISTRY, "app.kubernetes.io/component": "registry"}.items()
    ports = {port["name"]: port["port"] for port in find_object(objects, "Service", REGISTRY)["spec"]["ports"]}
    assert ports == {"http": 8080, "metrics": 9090}
    assert find_object(objects, "Service", f"{REGISTRY}-headless")["spec"]["clusterIP"] == "None"


@overlays
def test_every_reference_has_a_target(name: str) -> None:
    """Services refer to pods and ports, mounts to volumes, pods to accounts and settings."""
    objects = overlay(name)
    existing = {(each["kind"], each["metadata"]["name"]) for each in objects} | {("Secret", "mcp-registry-secret")}
    for each in objects:
        if each["kind"] == "Service":
            (template,) = [pod for _, pod in pod_templates(objects) if selector_matches(each["spec"]["selector"], pod)]
            offered = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= offered
        if each["kind"] == "StatefulSet":
            assert selector_matches(each["spec"]["selector"]["matchLabels"], each["spec"]["template"])
            assert ("Service", each["spec"]["serviceName"]) in existing
        if each["kind"] == "PodDisruptionBudget":
            assert [
                pod
                for _, pod in pod_templates(objects)
                if selector_matches(each["spec"]["selector"]["matchLabels"], pod)
            ]
    for owner, template in pod_templates(objects):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        if any(kind == "StatefulSet" and owner == known for kind, known in existing):
            claims = find_object(objects, "StatefulSet", owner)["spec"].get("volumeClaimTemplates", [])
            volumes |= {claim["metadata"]["name"] for claim in claims}
        for container in template["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            for source in container.get("envFrom", []):
                kind = "ConfigMap" if "configMapRef" in source else "Secret"
                assert (kind, next(iter(source.values()))["name"]) in existing
        assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in existing


@overlays
def test_the_environment_of_replicas_consists_of_settings(name: str) -> None:
    """The registry accepts all of them together, without a warning."""
    objects = overlay(name)
    container = registry_container(objects)
    setting_names = {setting.env for setting in SETTINGS.values()}
    settings, warnings = settings_of(name)

    others = {"POD_NAME", "POD_IP", "REDIS_PASSWORD"}
    assert container_environment(objects, container, SECRETS).keys() <= setting_names | others
    assert warnings == ()
    assert settings.instance_id == f"{REGISTRY}-0"
    assert {"http": settings.port, "metrics": settings.metrics_port} == {
        port["name"]: port["containerPort"] for port in container["ports"]
    }
    assert dockerfile_stages()[-1].instructions("EXPOSE") == [f"{settings.port} {settings.metrics_port}"]


@overlays
def test_probes_have_the_paths_and_intervals_of_the_guide(name: str) -> None:
    """Liveness does not depend on Redis; readiness decides whether a replica receives requests."""
    container = registry_container(overlay(name))
    live, ready = container["livenessProbe"], container["readinessProbe"]

    assert (live["httpGet"], live["initialDelaySeconds"], live["periodSeconds"]) == (
        {"path": "/health", "port": "metrics"},
        10,
        10,
    )
    assert (ready["httpGet"], ready["initialDelaySeconds"], ready["periodSeconds"]) == (
        {"path": "/ready", "port": "metrics"},
        5,
        5,
    )
    assert container["startupProbe"]["httpGet"] == live["httpGet"]
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 60
    assert {"GET /health", "GET /ready"} <= {*all_endpoints()}


@overlays
def test_pods_have_minimal_privileges(name: str) -> None:
    """They satisfy the restricted Pod Security Standard, and have no token, no writable root and memory limits."""
    for template, container in containers(overlay(name)):
        pod, security = template["spec"], container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@overlays
def test_pods_run_as_the_user_of_the_image(name: str) -> None:
    """Their group can write to their volumes."""
    (user,) = dockerfile_stages()[-1].instructions("USER")
    for _, template in pod_templates(overlay(name)):
        security = template["spec"]["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
        assert security["fsGroup"] == security["runAsGroup"]


@overlays
def test_a_stop_waits_for_requests_in_flight(name: str) -> None:
    """The grace period covers the shutdown delay and the shutdown."""
    pod = find_object(overlay(name), "StatefulSet", REGISTRY)["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] > settings_of(name)[0].shutdown_delay.total_seconds() + SHUTDOWN_S


@pytest.mark.parametrize("name", ["dev", "minikube"])
def test_dev_is_one_replica_with_persistent_agents(name: str) -> None:
    """It has the guide's volume and resources, and an image with the embedded store."""
    objects = overlay(name)
    found = find_object(objects, "StatefulSet", REGISTRY)["spec"]
    container = registry_container(objects)
    (claim,) = found["volumeClaimTemplates"]
    settings, _ = settings_of(name)

    assert found["replicas"] == 1
    assert claim["spec"]["resources"]["requests"] == {"storage": "5Gi"}
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container["volumeMounts"]
    assert (settings.redis_url, str(settings.data_dir), settings.write_acks) == (None, "/data/registry", 0)
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    assert container["image"] == "mcp-mesh/registry:dev"


def test_minikube_is_dev_without_image_pulls() -> None:
    """There is no other difference."""
    minikube, dev = registry_container(overlay("minikube")), registry_container(overlay("dev"))

    assert minikube == dev | {"imagePullPolicy": "Never"}


def test_ha_is_three_replicas_on_different_nodes() -> None:
    """They start in parallel and are disrupted one at a time, as are the Redis hosts."""
    objects = overlay("ha")
    for name in (REGISTRY, REDIS):
        found = find_object(objects, "StatefulSet", name)["spec"]
        (term,) = found["template"]["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert found["replicas"] == 3
        assert found["podManagementPolicy"] == "Parallel"
        assert found["updateStrategy"] == {"type": "RollingUpdate"}
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert selector_matches(term["labelSelector"]["matchLabels"], found["template"])
        assert find_object(objects, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    assert registry_container(objects)["image"] == compose_service("registry")["image"].replace(
        "${TAG:-latest}", "latest"
    )


def test_ha_contains_no_secret() -> None:
    """Its values would be in a repository."""
    assert [each for each in overlay("ha") if each["kind"] == "Secret"] == []


def test_ha_uses_the_sentinels_of_its_own_redis() -> None:
    """The URL has the names of the pods and the password of the Secret; a write is acknowledged by two servers."""
    objects = overlay("ha")
    settings, _ = settings_of("ha")
    url = parse_redis_url(settings.redis_url or "")
    redis = find_object(objects, "StatefulSet", REDIS)["spec"]
    hosts = [f"{REDIS}-{number}.{redis['serviceName']}" for number in range(redis["replicas"])]

    assert url.topology == "sentinel"
    assert url.nodes == tuple((host, 26379) for host in hosts)
    assert url.password == url.sentinel_password == SECRETS["REDIS_PASSWORD"]
    assert f"sentinel monitor {url.service_name} " in START_SCRIPT.read_text(encoding="utf-8")
    assert settings.write_acks == 1
    for container in redis["template"]["spec"]["containers"]:
        environ = container_environment(objects, container, SECRETS)
        assert environ["HOSTS"].split() == hosts
        assert environ["HOST"].endswith(f".{redis['serviceName']}")
        assert container["image"] == "redis:7.4-alpine"


def test_redis_is_durable() -> None:
    """The options for durability and change notifications are those of the embedded server."""
    embedded = dict(pairwise(SERVER_ARGUMENTS))
    lines = START_SCRIPT.read_text(encoding="utf-8").splitlines()

    for name in ("appendonly", "appendfsync", "maxmemory-policy", "notify-keyspace-events"):
        assert f"{name} {embedded[f'--{name}']}" in lines
    assert 'save ""' in lines
    config = find_object(overlay("ha"), "ConfigMap", REDIS)["data"]["start.sh"]
    assert config.splitlines() == lines


def test_only_replicas_backups_and_redis_hosts_reach_redis() -> None:
    """The policies on both sides agree."""
    objects = overlay("ha")
    (rule,) = find_object(objects, "NetworkPolicy", REDIS)["spec"]["ingress"]
    allowed = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    callers = {
        owner
        for owner, template in pod_templates(objects)
        if any(selector_matches(labels, template) for labels in allowed)
    }

    assert callers == {REGISTRY, REDIS, f"{REGISTRY}-backup"}
    for name in callers:
        policy = find_object(objects, "NetworkPolicy", name)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        targets = [peer["podSelector"]["matchLabels"] for rule in policy["egress"] for peer in rule.get("to", [])]
        assert targets == [find_object(objects, "StatefulSet", REDIS)["spec"]["selector"]["matchLabels"]]


def test_the_backup_job_runs_an_existing_command() -> None:
    """It reads the store of the replicas, and writes to its own volume."""
    objects = overlay("ha")
    job = find_object(objects, "CronJob", f"{REGISTRY}-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = job["containers"]
    (line, _) = container["args"][0].splitlines()
    program, command, file = shlex.split(line)

    assert program == "mcp-mesh-registry"
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    assert any(file.startswith(f"{mount['mountPath']}/") for mount in container["volumeMounts"])
    backup, replica = (
        container_environment(objects, each, SECRETS) for each in (container, registry_container(objects))
    )
    assert backup["REDIS_URL"] == replica["REDIS_URL"]
    assert load_settings(backup)[0].mesh == load_settings(replica)[0].mesh


def test_compose_and_kubernetes_have_the_same_ports() -> None:
    """They also listen on the same address."""
    kubernetes = container_environment(overlay("ha"), registry_container(overlay("ha")), SECRETS)
    compose = service_environment("registry")

    assert {name: kubernetes[name] for name in ("REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT")} == {
        name: compose[name] for name in ("REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT")
    }
