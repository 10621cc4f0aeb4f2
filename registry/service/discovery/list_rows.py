"""The JSON rows of agent lists: the interface of a row format, and the default row format."""

from typing import Final, Protocol

from registry.cache.view import Record, View

LARGE_SPEC_BYTES: Final = 2_000
"""The row of an agent with a larger spec may take long to render, so it is prepared before the list is rendered."""


class RowFormat(Protocol):
    """Interface of a row format, which renders each agent of a list as JSON."""

    def render(self, view: View, record: Record) -> bytes:
        """Return the row of an agent in a list, as a JSON object at the version of the view."""

    async def prepare(self, view: View, record: Record) -> None:
        """Render the slow part of an agent's row in advance, and cache it for `render`."""

    def depends_on_resolution(self, record: Record) -> bool:
        """Return whether a change of another agent can change the row of this agent."""


class PlainRows:
    """The default row format: shows each agent as `GET /agents/{id}` does."""

    def render(self, _view: View, record: Record) -> bytes:
        """Return the stored JSON of the agent."""
        return record.json

    async def prepare(self, _view: View, _record: Record) -> None:
        """Prepare nothing, because the JSON of an agent is already cached."""

    def depends_on_resolution(self, _record: Record) -> bool:
        """Return False: a plain row shows only data of its own agent."""
        return False
