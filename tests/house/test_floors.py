"""The import rules: the order of the rooms, and the modules that may import each third party."""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.source_code import (
    CLIENT_PACKAGE,
    PACKAGE,
    external_imports,
    imported_names,
    internal_imports,
    modules,
    parse_file,
)

Floors = Sequence[frozenset[str]]


def floors(*lines: str) -> Floors:
    """Return one set of rooms for each line of names."""
    return tuple(frozenset(line.split()) for line in lines)


# From the lowest floor up. A module belongs to the room with the longest matching prefix, and imports its own room and
# the rooms of lower floors: rooms on one line do not import each other.
FLOORS = floors(
    "errors duration spelling",
    "config",
    "telemetry",
    "concurrency",
    "model",
    "store cache",
    "service.version_constraints",
    "service.discovery",
    "service.watch service.resolution",
    "service.registration",
    "service.liveness",
    "service.health_report",
    "api",
    "compat http_server",
    "main",
    # Only the programs that start a registry read the environment.
    "config.env maintenance",
    "cli compat.registry_service",
    "__main__",
)
# Lower rooms that a room must not import.
FORBIDDEN = {
    "model": {"config", "telemetry", "concurrency"},
    "api": {"store", "cache"},
    "http_server": {"store", "cache", "service", "model"},
}
CLIENT_FLOORS = floors(
    "version errors types",
    "network_environment durations load",
    "filters replica_endpoints request_validation config event_loop_thread",
    "transport",
    "retry",
    "response_cache relist keep_alive",
    "read_fallbacks watch_stream",
    "watch",
    "shared_client_state",
    "wait_for",
    "client",
    "sync_client_support",
    "sync_client",
    "agent",
)

# The modules that may import each third party, by dotted prefix.
THIRD_PARTIES = {
    "click": {"cli"},
    "fakeredis": {"store.redis.connection"},
    "hiredis": {"store.redis.pipeline"},
    "httptools": {"http_server"},
    "httpx2": {"compat.mcpmesh.proxy.upstream"},
    "isal": {"api.response.compression"},
    # The MCP SDK costs 30 MB: these modules are imported at the first MCP call.
    "mcp": {"api.mcp.server"},
    "mcp_mesh_client": {"cli"},
    "mcp_types": {"api.mcp.server"},
    "msgspec": {"model", "api", "cache", "compat.mcpmesh", "store.record_codec"},
    "orjson": {"model", "api", "service", "store", "telemetry", "cli", "compat"},
    "packaging": {"service.version_constraints"},
    "platformdirs": {"config.settings"},
    "prometheus_client": {"telemetry"},
    "rapidfuzz": {"service.discovery.fuzzy"},
    "redis": {"store"},
    "rich": {"cli"},
    "starlette": {"api", "compat.mcpmesh", "main", "http_server"},
    "structlog": {"telemetry"},
    "uvicorn": {"http_server"},
    "uvloop": {"cli"},
    "yaml": {"cli"},
    "zstandard": {"api.response.compression"},
}
CLIENT_THIRD_PARTIES = {
    "httpx2": {"agent.provider_http_client", "network_environment", "transport"},
    "mcp": {"agent.autostart", "agent.http_server", "agent.provider_sessions", "agent.serve"},
    "mcp_types": {"agent.provider_http_client", "agent.provider_sessions"},
    "pydantic": {"agent.provider_sessions"},
    "starlette": {"agent.http_server"},
    "uvicorn": {"agent.http_server"},
}

MODULES = {name: path for name, path in modules().items() if name}
CLIENT_MODULES = {name: path for name, path in modules(CLIENT_PACKAGE).items() if name}


def prefixes(module: str) -> Iterator[str]:
    """Yield a dotted name and its prefixes, the longest first."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def floor_by_room(table: Floors) -> dict[str, int]:
    """Return the floor of each room."""
    return {room: number for number, rooms in enumerate(table) for room in rooms}


def room_of(module: str, table: Floors) -> str:
    """Return the room of a module; '' for a package that only groups rooms."""
    rooms = floor_by_room(table)
    return next((prefix for prefix in prefixes(module) if prefix in rooms), "")


def upward_imports(table: Floors, code: dict[str, Path]) -> set[str]:
    """Return each import of a room that is not below, as `module imports module`."""
    number = floor_by_room(table)
    found = set()
    for module, path in code.items():
        room = room_of(module, table)
        for name in internal_imports(path) - {""}:
            other = room_of(name, table)
            below = number[other] < number[room] and not set(prefixes(name)) & FORBIDDEN.get(room, set())
            if other != room and not below:
                found.add(f"{module} imports {name}")
    return found


def misplaced_third_parties(table: dict[str, set[str]], code: dict[str, Path]) -> set[str]:
    """Return each import of a third party by a module that the table does not name."""
    return {
        f"{module} imports {name}"
        for module, path in code.items()
        for name in external_imports(path) - sys.stdlib_module_names
        if not set(prefixes(module)) & table.get(name, set())
    }


def test_a_module_imports_only_lower_floors() -> None:
    """For example, the core imports nothing of `compat`: `main` plugs it in."""
    assert upward_imports(FLOORS, MODULES) == set()


def test_a_client_module_imports_only_lower_floors() -> None:
    """The client has floors of its own."""
    assert upward_imports(CLIENT_FLOORS, CLIENT_MODULES) == set()


def test_the_client_imports_nothing_of_the_server() -> None:
    """It is installed without the server."""
    assert {module for module, path in CLIENT_MODULES.items() if "registry" in external_imports(path)} == set()


def test_a_module_imports_only_the_third_parties_of_its_room() -> None:
    """A new third party gets a row in the table."""
    assert misplaced_third_parties(THIRD_PARTIES, MODULES) == set()
    assert misplaced_third_parties(CLIENT_THIRD_PARTIES, CLIENT_MODULES) == set()


def test_each_module_has_a_floor_and_each_floor_a_module() -> None:
    """A package that only groups rooms imports nothing."""
    for table, code in ((FLOORS, MODULES), (CLIENT_FLOORS, CLIENT_MODULES)):
        rooms = {room_of(module, table) for module, path in code.items() if set(imported_names(path))}
        rooms |= {room_of(module, table) for module in code} - {""}

        assert rooms == set(floor_by_room(table))


def test_each_third_party_is_used() -> None:
    """An unused third party is a dependency to drop."""
    for table, code in ((THIRD_PARTIES, MODULES), (CLIENT_THIRD_PARTIES, CLIENT_MODULES)):
        assert set(table) <= {name for path in code.values() for name in external_imports(path)}


def test_there_is_no_import_cycle() -> None:
    """Modules without imports are removed repeatedly; no module is left."""
    for package in (PACKAGE, CLIENT_PACKAGE):
        left = {module: internal_imports(path) - {"", module} for module, path in modules(package).items()}
        while free := {module for module, imported in left.items() if not imported & set(left)}:
            left = {module: imported for module, imported in left.items() if module not in free}

        assert left == {}


def test_the_server_package_imports_nothing() -> None:
    """`import registry` stays cheap."""
    assert set(imported_names(PACKAGE / "__init__.py")) == set()


def test_middleware_is_pure_asgi() -> None:
    """BaseHTTPMiddleware takes most of the throughput, so no module imports it."""
    found = {
        module for module, path in MODULES.items() if any("BaseHTTPMiddleware" in name for name in imported_names(path))
    }

    assert found == set()


def readers_of_the_environment(code: dict[str, Path]) -> set[str]:
    """Return the modules that read environment variables."""
    return {
        module
        for module, path in code.items()
        for node in ast.walk(parse_file(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
    }


def test_only_programs_read_the_environment() -> None:
    """A server reads its settings once, at the start; a client reads its options."""
    # It passes three variables on to the embedded server.
    readers = readers_of_the_environment(MODULES) - {"store.embedded.binary"}
    assert {room_of(module, FLOORS) for module in readers} == {
        "cli",
        "compat.registry_service",
    }
    assert {room_of(module, CLIENT_FLOORS) for module in readers_of_the_environment(CLIENT_MODULES)} == {
        "config",
        "agent",
        "network_environment",
    }
