"""deploy/kubernetes: what Kubernetes takes, what the guide promises, and what this code can be told."""

import shlex
from itertools import pairwise

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner

from registry.cli.main import main
from registry.config.env import load_settings
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
from tests.support.replica import STOP_TIMEOUT_S

SECRETS = {"AUTH_TOKEN": "a-token", "REDIS_PASSWORD": "0f1e"}
# The oldest that knows every kind and field used, and the newest whose schemas there are.
VERSIONS = ("1.27", "1.37")

overlays = pytest.mark.parametrize("name", OVERLAYS)


def settings_of(name: str) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings of a replica of this overlay, with their warnings."""
    return load_settings(container_environment(overlay(name), registry_container(overlay(name)), SECRETS))


@overlays
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(name: str, version: str) -> None:
    """Each by the schema of its kind, with nothing in it that the schema does not know."""
    for each in overlay(name):
        kubernetes_validate.validate(each, version, strict=True)


@overlays
def test_they_have_the_names_of_the_guide(name: str) -> None:
    """And its labels and ports, so that its commands find them."""
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
def test_every_name_leads_somewhere(name: str) -> None:
    """Services to pods and their ports, mounts to volumes, pods to accounts and settings."""
    objects = overlay(name)
    there = {(each["kind"], each["metadata"]["name"]) for each in objects} | {("Secret", "mcp-registry-secret")}
    for each in objects:
        if each["kind"] == "Service":
            (template,) = [pod for _, pod in pod_templates(objects) if selector_matches(each["spec"]["selector"], pod)]
            offered = {port["name"] for box in template["spec"]["containers"] for port in box["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= offered
        if each["kind"] == "StatefulSet":
            assert selector_matches(each["spec"]["selector"]["matchLabels"], each["spec"]["template"])
            assert ("Service", each["spec"]["serviceName"]) in there
        if each["kind"] == "PodDisruptionBudget":
            assert [
                pod
                for _, pod in pod_templates(objects)
                if selector_matches(each["spec"]["selector"]["matchLabels"], pod)
            ]
    for owner, template in pod_templates(objects):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        if any(kind == "StatefulSet" and owner == known for kind, known in there):
            claims = find_object(objects, "StatefulSet", owner)["spec"].get("volumeClaimTemplates", [])
            volumes |= {claim["metadata"]["name"] for claim in claims}
        for box in template["spec"]["containers"]:
            assert {mount["name"] for mount in box["volumeMounts"]} <= volumes
            for source in box.get("envFrom", []):
                kind = "ConfigMap" if "configMapRef" in source else "Secret"
                assert (kind, next(iter(source.values()))["name"]) in there
        assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in there


@overlays
def test_what_replicas_are_told_are_settings(name: str) -> None:
    """Every variable is one of the registry's, and it can use them, all together and without a warning."""
    objects = overlay(name)
    box = registry_container(objects)
    ours = {setting.env for setting in SETTINGS.values()}
    settings, warnings = settings_of(name)

    beside = {"POD_NAME", "POD_IP", "REDIS_PASSWORD"}
    assert container_environment(objects, box, SECRETS).keys() <= ours | beside
    assert warnings == ()
    assert settings.instance_id == f"{REGISTRY}-0"
    assert {"http": settings.port, "metrics": settings.metrics_port} == {
        port["name"]: port["containerPort"] for port in box["ports"]
    }
    assert dockerfile_stages()[-1].instructions("EXPOSE") == [f"{settings.port} {settings.metrics_port}"]


@overlays
def test_probes_ask_what_they_should_as_often_as_the_guide_does(name: str) -> None:
    """Liveness whether the process lives, whatever Redis does; readiness whether it should get requests."""
    box = registry_container(overlay(name))
    live, ready = box["livenessProbe"], box["readinessProbe"]

    assert (live["httpGet"], live["initialDelaySeconds"], live["periodSeconds"]) == (
        {"path": "/health", "port": "http"},
        10,
        10,
    )
    assert (ready["httpGet"], ready["initialDelaySeconds"], ready["periodSeconds"]) == (
        {"path": "/ready", "port": "http"},
        5,
        5,
    )
    assert {"GET /health", "GET /ready"} <= {*all_endpoints()}


@overlays
def test_nobody_can_do_more_than_he_must(name: str) -> None:
    """What the restricted Pod Security Standard asks for, and nothing to write to, no token, limits."""
    for template, box in containers(overlay(name)):
        pod, security = template["spec"], box["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert box["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in box["resources"]["limits"]


@overlays
def test_a_pod_runs_as_whom_the_image_is_made_for(name: str) -> None:
    """And in a group that may write to its volumes."""
    (user,) = dockerfile_stages()[-1].instructions("USER")
    for _, template in pod_templates(overlay(name)):
        security = template["spec"]["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
        assert security["fsGroup"] == security["runAsGroup"]


@overlays
def test_a_stop_waits_for_what_is_in_flight(name: str) -> None:
    """For the time a replica serves on, and for its end."""
    pod = find_object(overlay(name), "StatefulSet", REGISTRY)["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] > settings_of(name)[0].shutdown_delay.total_seconds() + STOP_TIMEOUT_S


@pytest.mark.parametrize("name", ["dev", "minikube"])
def test_dev_is_one_replica_that_keeps_its_agents(name: str) -> None:
    """On the guide's claim, with its resources; the image has a store in it."""
    objects = overlay(name)
    found = find_object(objects, "StatefulSet", REGISTRY)["spec"]
    box = registry_container(objects)
    (claim,) = found["volumeClaimTemplates"]
    settings, _ = settings_of(name)

    assert found["replicas"] == 1
    assert claim["spec"]["resources"]["requests"] == {"storage": "5Gi"}
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in box["volumeMounts"]
    assert (settings.redis_url, str(settings.data_dir), settings.write_acks) == (None, "/data", 0)
    assert box["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    assert box["image"] == "mcp-mesh/registry:dev"


def test_minikube_is_dev_that_pulls_nothing() -> None:
    """And nothing else."""
    here, there = registry_container(overlay("minikube")), registry_container(overlay("dev"))

    assert here == there | {"imagePullPolicy": "Never"}


def test_ha_is_three_replicas_on_nodes_of_their_own() -> None:
    """Which come and go together or one by one, but never two by somebody's will; so is Redis."""
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


def test_ha_holds_no_secret() -> None:
    """Its values would lie in a repository."""
    assert [each for each in overlay("ha") if each["kind"] == "Secret"] == []


def test_ha_asks_the_sentinels_of_its_own_redis() -> None:
    """By the names its pods have, with the password from the secret; a second Redis has what is acknowledged."""
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
    for box in redis["template"]["spec"]["containers"]:
        environ = container_environment(objects, box, SECRETS)
        assert environ["HOSTS"].split() == hosts
        assert environ["HOST"].endswith(f".{redis['serviceName']}")
        assert box["image"] == "redis:7.4-alpine"


def test_redis_keeps_what_it_acknowledges() -> None:
    """It is set up as the embedded server is, in all that durability and the bell rest on."""
    embedded = dict(pairwise(SERVER_ARGUMENTS))
    said = START_SCRIPT.read_text(encoding="utf-8").splitlines()

    for name in ("appendonly", "appendfsync", "maxmemory-policy", "notify-keyspace-events"):
        assert f"{name} {embedded[f'--{name}']}" in said
    assert 'save ""' in said
    config = find_object(overlay("ha"), "ConfigMap", REDIS)["data"]["start.sh"]
    assert config.splitlines() == said


def test_who_may_reach_redis_is_who_needs_to() -> None:
    """Replicas, backups and the hosts among themselves, by policies on both sides."""
    objects = overlay("ha")
    (rule,) = find_object(objects, "NetworkPolicy", REDIS)["spec"]["ingress"]
    let_in = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    callers = {
        owner
        for owner, template in pod_templates(objects)
        if any(selector_matches(labels, template) for labels in let_in)
    }

    assert callers == {REGISTRY, REDIS, f"{REGISTRY}-backup"}
    for name in callers:
        policy = find_object(objects, "NetworkPolicy", name)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        ways = [peer["podSelector"]["matchLabels"] for rule in policy["egress"] for peer in rule.get("to", [])]
        assert ways == [find_object(objects, "StatefulSet", REDIS)["spec"]["selector"]["matchLabels"]]


def test_a_backup_is_a_command_there_is() -> None:
    """With the store of the replicas, and onto the volume it has."""
    objects = overlay("ha")
    job = find_object(objects, "CronJob", f"{REGISTRY}-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (box,) = job["containers"]
    (line, _) = box["args"][0].splitlines()
    program, command, file = shlex.split(line)

    assert program == "mcp-mesh-registry"
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    assert any(file.startswith(f"{mount['mountPath']}/") for mount in box["volumeMounts"])
    theirs, ours = (container_environment(objects, each, SECRETS) for each in (box, registry_container(objects)))
    assert theirs["REDIS_URL"] == ours["REDIS_URL"]
    assert load_settings(theirs)[0].mesh == load_settings(ours)[0].mesh


def test_compose_and_kubernetes_agree_on_the_ports() -> None:
    """So do their images."""
    here = container_environment(overlay("ha"), registry_container(overlay("ha")), SECRETS)
    there = service_environment("registry")

    assert {name: here[name] for name in ("REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT")} == {
        name: there[name] for name in ("REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT")
    }
