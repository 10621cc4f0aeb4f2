"""Messages of 404 and 405 that name the nearest path and the allowed methods."""

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.routing import Route

_PARAMETER: Final = re.compile(r"\{(\w+)(:\w+)?\}")
# Names that other products use, each with the path that has the same purpose here.
_SYNONYMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("docs", "redoc", "swagger", "swagger.json", "openapi", "openapi.yaml"), "/openapi.json"),
        **dict.fromkeys(("healthz", "livez", "status"), "/health"),
        "readyz": "/ready",
        **dict.fromkeys(("register", "services", "servers", "discover"), "/agents"),
        **dict.fromkeys(("list_agents", "find_agents"), "/mcp/tools/discover_services"),
    }
)
_MIN_SIMILARITY: Final = 0.7
# The search compares each of the first segments with about 40 names.
_MAX_PATH_CHARS, _MAX_SEGMENTS = 100, 4


class PathSuggestions:
    """The paths of the API, searched for the one that a caller meant."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._methods: dict[str, set[str]] = {}
        self._paths_by_name: dict[str, list[str]] = {}
        for route in routes:
            path = _PARAMETER.sub(r"{\1}", route.path)
            if path not in self._methods:
                name = next((part for part in reversed(path.split("/")) if part and "{" not in part), "")
                self._paths_by_name.setdefault(name, []).append(path)
            self._methods.setdefault(path, set()).update((route.methods or set()) - {"HEAD"})

    def explain(self, error: HTTPException, method: str, path: str) -> HTTPException:
        """Return a 404 with the nearest path in its message, or a 405 with the allowed methods in its message."""
        if error.status_code == 405:  # noqa: PLR2004
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            message = f"{method} is not allowed for this path; allowed: {allowed}"
            return HTTPException(405, message, {"Allow": allowed})
        nearest = self._nearest(path)
        hint = f"the nearest one is {nearest} ({', '.join(sorted(self._methods[nearest]))}); " if nearest else ""
        return HTTPException(404, f"Path not found; {hint}GET / lists the endpoints")

    def _nearest(self, path: str) -> str | None:
        """Return the path that an unknown path resembles most, compared by its last known name."""
        requested = unquote(path[:_MAX_PATH_CHARS]).lower()
        for name in reversed(requested.split("/")[1 : _MAX_SEGMENTS + 1]):
            synonym = _SYNONYMS.get(name)
            if synonym in self._methods:
                return synonym
            similar = difflib.get_close_matches(name, self._paths_by_name, n=1, cutoff=_MIN_SIMILARITY)
            if similar:
                return max(self._paths_by_name[similar[0]], key=lambda each: _similarity(each, requested))
        return None


def _similarity(path: str, requested: str) -> float:
    return difflib.SequenceMatcher(None, _PARAMETER.sub("", path), requested).ratio()
