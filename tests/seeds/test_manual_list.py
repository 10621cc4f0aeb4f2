"""The manual test list of `agent_redesign.md`, done by real processes: the examples, on three replicas."""

import re
import signal

from tests.seeds.code_blocks import DOCUMENTS_DIR
from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.polling import async_wait_until
from tests.support.replica_group import running_replicas

LIST = re.findall(
    r"^\d\. (.*)$",
    (DOCUMENTS_DIR / "agent_redesign.md").read_text(encoding="utf-8").partition("### Manual Testing")[2],
    re.MULTILINE,
)


async def test_the_list_holds_on_three_replicas_of_which_one_is_killed(redis_url: str) -> None:
    """A dependency that stops is removed, one that starts is restored; nobody misses the replica that died."""
    assert [line.split()[0] for line in LIST] == ["Start", "Run", "Verify", "Stop", "Verify", "Start", "Verify"]
    with running_replicas(redis_url, 3) as running:
        urls = [replica.url for replica in running]
        date = AgentProcess("examples/date_service.py", *urls, name="dateservice")
        with AgentProcess("examples/greeting.py", *urls, name="greeting") as greeting, date:
            agent = wait_until_registered(urls[1], "greeting")
            assert {each["function_name"] for each in agent["capabilities"]} == {"greet", "farewell"}

            async def greet() -> str:
                # Until the next heartbeat it may still call who is gone.
                return str(await call_tool(agent["endpoint"], "greet", name="Ada"))

            async def dated() -> bool:
                return (await greet()).startswith("Hello Ada, date is 2")

            async def bare() -> bool:
                return await greet() == "Hello Ada"

            await async_wait_until(dated, description="the dependency is there", timeout=15)
            running[0].kill()
            date.wait_for_exit(signal.SIGTERM)
            await async_wait_until(bare, description="the dependency is removed", timeout=15)
            date.start()
            await async_wait_until(dated, description="the dependency is restored", timeout=15)
            # Now without a farewell: it is found silent.
            date.kill()
            await async_wait_until(bare, description="the killed one is removed", timeout=30)
            date.start()
            await async_wait_until(dated, description="it is restored again", timeout=15)
            assert greeting.is_running
            assert wait_until_registered(urls[2], "greeting")["id"] == agent["id"]
