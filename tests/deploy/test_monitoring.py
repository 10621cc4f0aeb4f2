"""The dashboard and the alerts: their metrics exist, and Prometheus accepts their queries."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.tools.manifests import CHART_DIR
from tests.deploy.kubernetes_objects import find_object, overlay
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.replica import Replica

ALERTS = CHART_DIR / "monitoring" / "alerts.yaml"
DASHBOARD = CHART_DIR / "monitoring" / "dashboard.json"
# Metrics of the kubelet.
FOREIGN = {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"}

_NAME = re.compile(r"\b(?:mcp_registry|container)_[a-z0-9_]+\b")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def alerts() -> dict[str, str]:
    """Return the expression of every alert, by name."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def queries() -> dict[str, str]:
    """Return every query of the dashboard, by panel, with its variables replaced."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "1m")
        .replace("$namespace", "mcp-mesh")
        for panel in panels
        for target in panel["targets"]
    }


@pytest.fixture
def exported(redis_url: str) -> set[str]:
    """Return the names of all samples of a replica after some calls, as a scraper reads them."""
    with Replica(redis_url) as replica:
        httpx2.post(f"{replica.url}/agents", json=a_registration(), timeout=REQUEST_TIMEOUT_S)
        httpx2.get(f"{replica.url}/agents/nobody", timeout=REQUEST_TIMEOUT_S)
        text = httpx2.get(f"{replica.url}/metrics/prometheus", timeout=REQUEST_TIMEOUT_S).text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    names = set(re.findall(r"^([a-z_0-9]+)[ {]", text, re.MULTILINE))
    # A counter that was never incremented has a type, but no sample.
    return names | {name for name, kind in types.items() if kind == "counter"}


def test_every_metric_exists(exported: set[str]) -> None:
    """The name in each alert and panel is the one that a replica exports."""
    used = {name: set(_NAME.findall(query)) for name, query in [*alerts().items(), *queries().items()]}
    unknown = {name: metrics - exported - FOREIGN for name, metrics in used.items()}

    assert all(used.values())
    assert {name: metrics for name, metrics in unknown.items() if metrics} == {}


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    """Their ids are unique, too."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@needs_promtool
def test_prometheus_accepts_all_queries(tmp_path: Path) -> None:
    """The queries of the dashboard are checked as recording rules."""
    rules = [{"record": f"query:{at}", "expr": query} for at, query in enumerate(queries().values())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))

    for path in (ALERTS, tmp_path / "queries.yaml"):
        result = subprocess.run(["promtool", "check", "rules", path], capture_output=True, check=False, text=True)
        assert result.returncode == 0, result.stderr


# Series of a mesh with two replicas, one sample a minute; each entry of FAULTS changes them so that its alert fires.
HEALTHY = {
    'mcp_registry_ready{pod="a"}': "1x20",
    'mcp_registry_ready{pod="b"}': "1x20",
    'mcp_registry_insecure{pod="a",reason="open"}': "0x20",
    'mcp_registry_insecure{pod="b",reason="sample_token"}': "0x20",
    'mcp_registry_is_leader{pod="a"}': "1x20",
    'mcp_registry_is_leader{pod="b"}': "0x20",
    'mcp_registry_cache_staleness_seconds{pod="a"}': "0x20",
    'mcp_registry_agents_total{pod="a"}': "100x20",
    'mcp_registry_agents_by_status{pod="a",status="degraded"}': "5x20",
    'mcp_registry_agents_by_status{pod="a",status="expired"}': "0x20",
    'mcp_registry_requests_total{pod="a",status="200"}': "0+6000x20",
    'mcp_registry_errors_total{pod="a",status="503"}': "0+1x20",
    'mcp_registry_errors_total{pod="a",status="404"}': "0+6000x20",
    'mcp_registry_overdue_agents{pod="a"}': "0x20",
    'mcp_registry_self_preservation_active{pod="a"}': "0x20",
    'mcp_registry_self_preservation_suspended_agents{pod="a"}': "0x20",
    'mcp_registry_loop_lag_seconds{pod="a"}': "0.2x20",
    'mcp_registry_loop_errors_total{pod="a",loop="sweep"}': "0x20",
    'mcp_registry_script_duration_seconds_bucket{pod="a",le="0.01"}': "0+6000x20",
    'mcp_registry_script_duration_seconds_bucket{pod="a",le="1"}': "0+6000x20",
    'mcp_registry_script_duration_seconds_bucket{pod="a",le="+Inf"}': "0+6000x20",
}
FAULTS = {
    "RegistryDown": {'mcp_registry_ready{pod="a"}': "0x20", 'mcp_registry_ready{pod="b"}': "0x20"},
    "RegistryInsecure": {'mcp_registry_insecure{pod="b",reason="sample_token"}': "1x20"},
    "RegistryReplicaNotReady": {'mcp_registry_ready{pod="b"}': "0x20"},
    "RegistryNotSwept": {'mcp_registry_is_leader{pod="a"}': "0x20"},
    "RegistryTwoLeaders": {'mcp_registry_is_leader{pod="b"}': "1x20"},
    "RegistryStale": {'mcp_registry_cache_staleness_seconds{pod="a"}': "30x20"},
    "RegistryErrors": {'mcp_registry_errors_total{pod="a",status="503"}': "0+600x20"},
    "RegistrySlow": {'mcp_registry_script_duration_seconds_bucket{pod="a",le="0.01"}': "0+3000x20"},
    "RegistryAgentsUnhealthy": {'mcp_registry_agents_by_status{pod="a",status="degraded"}': "50x20"},
    "RegistrySelfPreservation": {
        'mcp_registry_self_preservation_active{pod="a"}': "1x20",
        'mcp_registry_overdue_agents{pod="a"}': "60x20",
        'mcp_registry_self_preservation_suspended_agents{pod="a"}': "60x20",
    },
    "RegistrySweepLate": {'mcp_registry_overdue_agents{pod="a"}': "60x20"},
    "RegistryLoopLag": {'mcp_registry_loop_lag_seconds{pod="a"}': "3x20"},
    "RegistryLoopFails": {'mcp_registry_loop_errors_total{pod="a",loop="sweep"}': "0+60x20"},
}


@needs_promtool
@pytest.mark.parametrize("name", [None, *alerts()])
def test_each_alert_fires_for_its_fault_only(name: str | None, tmp_path: Path) -> None:
    """Prometheus evaluates twenty minutes; without a fault no alert fires, and RegistryDown implies not ready."""
    series = HEALTHY | FAULTS.get(name or "", {})
    implied = {"RegistryDown": ["RegistryReplicaNotReady"]}.get(name or "", [])
    firing = sorted([name, *implied]) if name else []
    expression = 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0'
    expected = [{"labels": f'{{alertname="{each}"}}', "value": 1} for each in firing]
    test = {
        "rule_files": [str(ALERTS)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": "19m", "exp_samples": expected}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test), encoding="utf-8")
    result = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, check=False, text=True
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_fault() -> None:
    """The fault shows that the alert fires."""
    assert FAULTS.keys() == alerts().keys()


def test_the_manifests_contain_both_files() -> None:
    """The operator's rule has the alerts, and Grafana's ConfigMap the dashboard, unchanged."""
    objects = overlay("monitoring")
    rule = find_object(objects, "PrometheusRule", "mcp-mesh-registry")
    board = find_object(objects, "ConfigMap", "mcp-mesh-registry-dashboard")

    assert rule["spec"] == yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    assert json.loads(board["data"]["mcp-mesh-registry.json"]) == json.loads(DASHBOARD.read_text(encoding="utf-8"))
