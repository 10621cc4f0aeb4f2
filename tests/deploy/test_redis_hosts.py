"""The chart's Redis under a replica: whichever host or volume is lost, what was acknowledged stays, and all goes on."""

import httpx2
import pytest

from tests.deploy.redis_hosts import RedisHosts
from tests.support.http_calls import a_registration
from tests.support.polling import wait_until
from tests.support.replica import Replica

pytestmark = pytest.mark.timeout(300)


class Mesh:
    """A replica on these hosts, set up as the chart does it, and what it has acknowledged."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._acknowledged: set[str] = set()

    def moves_to(self, replica: Replica) -> None:
        """Go through another replica from now on."""
        self._replica = replica

    def takes_another(self) -> bool:
        """Register one more agent, the same until that is acknowledged; tell whether it was."""
        agent_id = f"agent-{len(self._acknowledged)}"
        answer = httpx2.post(f"{self._replica.url}/agents", json=a_registration(agent_id), timeout=15)
        if answer.status_code == 200:
            self._acknowledged.add(agent_id)
        return answer.status_code == 200

    def goes_on(self) -> None:
        """Assert that it takes writes again, and still has all that it ever acknowledged."""
        wait_until(self.takes_another, description="a registration is acknowledged", timeout=60)
        answer = httpx2.get(f"{self._replica.url}/agents", timeout=15)
        assert answer.status_code == 200
        assert {agent["id"] for agent in answer.json()["agents"]} == self._acknowledged


def test_no_loss_of_a_host_or_its_volume_loses_data() -> None:
    """Born empty; the primary dies and returns; volumes are lost; all go at once; a new password."""
    with RedisHosts() as hosts:
        first, *others = hosts.all
        assert hosts.wait_for_leader(*hosts.all) is first
        with Replica(hosts.url, REGISTRY_WRITE_ACKS="1") as replica:
            mesh = Mesh(replica)
            mesh.goes_on()

            first.kill()
            mesh.goes_on()
            first.start()
            hosts.wait_for_leader(*others)
            mesh.goes_on()

            # The one that was to lead at the very beginning comes with an empty volume.
            first.kill()
            first.lose_volume()
            first.start()
            leader = hosts.wait_for_leader(*others)
            mesh.goes_on()

            # The primary itself comes back empty, before anybody has missed it.
            leader.kill()
            leader.lose_volume()
            leader.start()
            hosts.wait_for_leader(*(host for host in hosts.all if host is not leader))
            mesh.goes_on()

            for host in hosts.all:
                host.kill()
            for host in hosts.all:
                host.start()
            hosts.wait_for_leader(*hosts.all)
            mesh.goes_on()
        # The secret was replaced: all of them come with another password, and with it the replica.
        for host in hosts.all:
            host.kill()
            host.password = f"{host.password}0"
            host.start()
        hosts.wait_for_leader(*hosts.all)
        with Replica(hosts.url, REGISTRY_WRITE_ACKS="1") as replica:
            mesh.moves_to(replica)
            mesh.goes_on()
