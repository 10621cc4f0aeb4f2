"""The floors of the house: who may import whom, and which room holds which third party."""

import ast
import sys

from tests.support.source_code import PACKAGE, external_imports, imported_names, internal_imports, modules, parse_file

# Room by room, from the ground up; a room may always import itself. The version (``) is for everybody.
GROUND = frozenset(
    {"durations", "errors", "loops", "model", "notation", "redis_url", "settings", "telemetry", "waiters"}
)
MAY_IMPORT = {
    "errors": frozenset[str](),
    "durations": frozenset[str](),
    "redis_url": frozenset[str](),
    "notation": frozenset({"durations", "errors", "redis_url"}),
    "waiters": frozenset({"errors"}),
    "model": frozenset({"durations", "errors"}),
    "telemetry": frozenset({"errors"}),
    "settings": frozenset({"durations", "errors", "notation"}),
    # Read by whoever starts a registry; nobody below may.
    "environment": frozenset({"errors", "notation", "settings"}),
    "loops": frozenset({"errors", "telemetry"}),
    "store": GROUND,
    "cache": GROUND,
    "service": GROUND | {"store", "cache"},
    "api": GROUND | {"service"},
    "server": GROUND | {"api"},
    "main": GROUND | {"store", "cache", "service", "api", "server"},
    "embedding": GROUND | {"environment", "main", "service", "cache"},
    "maintenance": GROUND | {"main", "store", "cache"},
    # Some commands run a registry, the others call one, as an agent would.
    "command": GROUND | {"environment", "main", "maintenance", "server", "store", "client"},
    "__main__": frozenset({"command"}),
    # The garden house: it imports nothing of the server, so that it may be used where no server is installed.
    "client": frozenset[str](),
}

# Where each third party may be imported: rooms, or single modules with a dot.
THIRD_PARTIES = {
    "click": {"command"},
    "fakeredis": {"store.connection"},
    "httpx2": {"client.wire", "client.agents.sessions", "api.mesh.outgoing"},
    # The official SDK and its types, an extra: each of these modules is imported when it is first needed.
    "isal": {"api"},
    "mcp": {
        "api.mcp_server",
        "client.agents.answering",
        "client.agents.serving",
        "client.agents.sessions",
        "client.agents.site",
    },
    "mcp_types": {"api.mcp_server", "client.agents.sessions"},
    "msgspec": {"model", "api", "cache", "store.codec"},
    "orjson": {"model", "api", "service", "store", "telemetry", "command", "embedding"},
    "packaging": {"service"},
    "platformdirs": {"settings"},
    "prometheus_client": {"telemetry", "api.health"},
    "pydantic": {"client.agents.sessions"},
    "rapidfuzz": {"service"},
    "redis": {"store"},
    "rich": {"command"},
    "starlette": {"api", "main", "server", "client.agents.site"},
    "structlog": {"telemetry"},
    "uvicorn": {"server", "client.agents.site"},
    "uvloop": {"command"},
    "yaml": {"command"},
    "zstandard": {"api"},
}

MODULES = {name: path for name, path in modules().items() if name}


def room(module: str) -> str:
    """Return the room a module is in: its first name."""
    return module.partition(".")[0]


def test_a_module_imports_only_what_is_below_its_floor() -> None:
    """The two streets are one-way, and store and cache do not know each other."""
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in internal_imports(path)
        if room(name) not in MAY_IMPORT.get(room(module), frozenset()) | {room(module), ""}
    }

    assert wrong == set()


def test_a_module_imports_only_the_third_parties_of_its_room() -> None:
    """A new one is decided on here."""
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in external_imports(path) - sys.stdlib_module_names
        if not {room(module), module} & THIRD_PARTIES.get(name, set())
    }

    assert wrong == set()


def test_no_room_is_without_a_rule() -> None:
    """And no rule without a room; new rooms come with their issues."""
    assert {room(module) for module in MODULES} == set(MAY_IMPORT)


def test_no_rule_is_without_a_reader() -> None:
    """A third party that nobody imports is a dependency to drop."""
    used = {name for path in MODULES.values() for name in external_imports(path)}

    assert set(THIRD_PARTIES) <= used


def test_there_is_no_cycle() -> None:
    """Peel off the modules whose imports are all gone: in the end nothing is left."""
    left = {module: internal_imports(path) - {"", module} for module, path in modules().items()}
    while free := {module for module, wanted in left.items() if not wanted & set(left)}:
        left = {module: wanted for module, wanted in left.items() if module not in free}

    assert left == {}


def test_the_top_package_imports_nothing() -> None:
    """`import registry` stays cheap."""
    assert set(imported_names(PACKAGE / "__init__.py")) == set()


def test_middleware_is_pure_asgi() -> None:
    """BaseHTTPMiddleware costs most of the throughput; nothing from that module is imported."""
    found = {
        module for module, path in MODULES.items() if any("BaseHTTPMiddleware" in name for name in imported_names(path))
    }

    assert found == set()


def test_only_who_starts_a_registry_or_a_client_reads_the_environment() -> None:
    """Settings are read once, and so is what a client is told; nobody else looks."""
    readers = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(parse_file(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
    }

    assert {room(module) for module in readers} == {"client", "command", "embedding"}
