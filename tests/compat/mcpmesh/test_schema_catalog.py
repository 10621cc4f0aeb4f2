"""Schemas are gathered while others have their turn."""

from registry.compat.mcpmesh.schema_catalog import _collect_schemas
from tests.support.builders import an_agent
from tests.support.resolution_builders import view_of
from tests.support.yield_counter import count_yields


async def test_large_schemas_are_gathered_in_turns() -> None:
    """Fifty agents of a megabyte each were read without a break, which took half a second."""
    schema = {"x": ["y"] * 100_000}
    tools = [{"name": "c", "outputSchemaHash": "h", "outputSchemaCanonical": schema}]
    view = view_of(
        *(an_agent(f"a-{at}", registration_format={"name": "mcp-mesh"}, capabilities=tools) for at in range(20))
    )
    async with count_yields() as them:
        found = await _collect_schemas(view)

    assert list(found) == ["h"]
    assert them.yields > 2
