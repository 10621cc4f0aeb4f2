"""The watch of the guide runs with only its import changed."""

import asyncio
import re
from pathlib import Path

import pytest
import redis

from registry.compat.registry_service import RegistryService
from registry.config.settings import Settings
from registry.errors import VersionTooOld
from registry.store.agents import RegistrationWrite
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from tests.support.builders import a_spec
from tests.support.polling import async_wait_until

GUIDE = Path(__file__).parents[1] / "seeds" / "pull_based_registry.md"


async def register(url: str, agent_id: str) -> None:
    """Register an agent through another replica."""
    store = Store(endpoint_from_url(url), Settings(), lambda _script, _seconds: None)
    await store.agents.register(RegistrationWrite(agent_id, a_spec(agent_id, name=agent_id), 60_000, 120_000))
    await store.close()


async def test_the_guides_watch_runs_with_only_its_import_changed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the events of another replica."""
    found = re.search(r"```python\n(async def watch_registry_events\(\):.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    snippet = found[1].replace("mcp_mesh.server.registry", "registry.compat.registry_service")
    names: dict[str, object] = {"asyncio": asyncio}
    exec(snippet, names)  # noqa: S102 - the guide's own words
    monkeypatch.setenv("REDIS_URL", redis_url)
    printed: list[str] = []

    async def three_are_printed() -> bool:
        """Register one more agent, because the first ones may precede the watch of the guide."""
        await register(redis_url, f"agent-{len(printed)}")
        printed.append(capsys.readouterr().out)
        return "".join(printed).count("New agent registered") > 2

    watching = asyncio.create_task(names["watch_registry_events"]())  # type: ignore[operator]
    await async_wait_until(three_are_printed, description="the guide prints what it sees")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert "Event: ADDED" in "".join(printed)
    assert re.search(r"New agent registered: agent-\d+", "".join(printed))


async def test_a_cancelled_wait_loses_no_event(redis_url: str) -> None:
    """The guide waits with a timeout in a loop."""
    service = RegistryService(Settings(redis_url=redis_url))
    await service.initialize()
    watcher = service.storage.create_watcher()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watcher.get(), timeout=0.01)
    for agent_id in ("a", "b", "c"):
        await register(redis_url, agent_id)

    seen = [(await watcher.get())["object"]["id"] for _ in range(3)]

    assert seen == ["a", "b", "c"]
    watcher.close()
    await service.close()


async def test_a_watch_that_cannot_continue_raises_an_error(redis_url: str, redis_client: redis.Redis) -> None:
    """It ends when the log is lost, and when the service is closed."""
    service = RegistryService(Settings(redis_url=redis_url))
    await service.initialize()
    watcher = service.storage.create_watcher()
    redis_client.flushall()

    with pytest.raises(VersionTooOld):
        await watcher.get()
    await service.close()

    with pytest.raises(RuntimeError):
        _ = service.storage
