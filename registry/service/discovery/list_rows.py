"""How lists show an agent: the protocol of a row format, and the default row format."""

from typing import Final, Protocol

from registry.cache.view import Record, View

LARGE_SPEC_BYTES: Final = 2_000
"""The row of an agent with a larger spec may take long to render, so it is prepared before the list is rendered."""


class RowFormat(Protocol):
    """Renders the agents of a list."""

    def render(self, view: View, record: Record) -> bytes:
        """Return an agent as lists show it at the version of the view, as a JSON object."""

    async def prepare(self, view: View, record: Record) -> None:
        """Do the part of `render` that may take long, and cache it."""

    def depends_on_resolution(self, record: Record) -> bool:
        """Return whether a change of another agent may change the row."""


class PlainRows:
    """Shows each agent as `GET /agents/{id}` does."""

    def render(self, _view: View, record: Record) -> bytes:
        """Return the agent's own JSON."""
        return record.json

    async def prepare(self, _view: View, _record: Record) -> None:
        """Do nothing: the JSON is encoded once for each change of the agent."""

    def depends_on_resolution(self, _record: Record) -> bool:
        """Return False."""
        return False
