"""The manual test list of `agent_redesign.md`, with the examples as real processes, on three replicas."""

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


async def test_the_list_passes_on_three_replicas_of_which_one_is_killed(redis_url: str) -> None:
    """A stopped dependency is removed, a started one is restored; the death of a replica has no effect."""
    assert [line.split()[0] for line in LIST] == ["Start", "Run", "Verify", "Stop", "Verify", "Start", "Verify"]
    with running_replicas(redis_url, 3) as running:
        urls = [replica.url for replica in running]
        date = AgentProcess("examples/date_service.py", *urls, name="dateservice")
        with AgentProcess("examples/greeting.py", *urls, name="greeting") as greeting, date:
            agent = wait_until_registered(urls[1], "greeting")
            assert {each["function_name"] for each in agent["capabilities"]} == {"greet", "farewell"}

            async def greet() -> str:
                # Until its next heartbeat the agent may still call a provider that has gone.
                return str(await call_tool(agent["endpoint"], "greet", name="Ada"))

            async def greets_with_date() -> bool:
                return (await greet()).startswith("Hello Ada, date is 2")

            async def greets_without_date() -> bool:
                return await greet() == "Hello Ada"

            await async_wait_until(greets_with_date, description="the dependency is resolved")
            running[0].kill()
            date.wait_for_exit(signal.SIGTERM)
            await async_wait_until(greets_without_date, description="the dependency is removed")
            date.start()
            await async_wait_until(greets_with_date, description="the dependency is restored")
            # A killed agent does not deregister: it is removed when it is overdue.
            date.kill()
            await async_wait_until(greets_without_date, description="the killed agent is removed")
            date.start()
            await async_wait_until(greets_with_date, description="the dependency is restored again")
            assert greeting.is_running
            assert wait_until_registered(urls[2], "greeting")["id"] == agent["id"]
