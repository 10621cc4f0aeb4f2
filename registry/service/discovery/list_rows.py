"""The JSON rows of agent lists: the default row format, from which others are derived."""

from typing import Final

from registry.cache.view import Record, View

LARGE_SPEC_BYTES: Final = 2_000
"""The row of an agent with a larger spec may take long to render, so it is prepared before the list is rendered."""


class RowFormat:
    """The default row format, which shows each agent as `GET /agents/{id}` does; base class of other row formats."""

    def render(self, _view: View, record: Record) -> bytes:
        """Return the row of an agent in a list, as a JSON object at the version of the view."""
        return record.json

    async def prepare(self, _view: View, _record: Record) -> None:
        """Render the slow part of an agent's row in advance, and cache it for `render`."""

    def depends_on_resolution(self, _record: Record) -> bool:
        """Return whether a change of another agent can change the row of this agent."""
        return False
