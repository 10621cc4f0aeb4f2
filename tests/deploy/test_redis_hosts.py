"""The chart's Redis hosts: no loss of one host or volume loses an acknowledged write."""

import httpx2

from tests.deploy.redis_hosts import RedisHosts
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.polling import wait_until
from tests.support.replica import Replica


class Mesh:
    """A replica on these hosts with the settings of the chart, and the agents that it acknowledged."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._acknowledged: set[str] = set()

    def use_replica(self, replica: Replica) -> None:
        """Send all further calls to this replica."""
        self._replica = replica

    def register_next(self) -> bool:
        """Register the next agent; return whether the registration was acknowledged."""
        agent_id = f"agent-{len(self._acknowledged)}"
        response = httpx2.post(f"{self._replica.url}/agents", json=a_registration(agent_id), timeout=REQUEST_TIMEOUT_S)
        if response.status_code == 200:
            self._acknowledged.add(agent_id)
        return response.status_code == 200

    def verify(self) -> None:
        """Assert that a write is acknowledged again, and that all acknowledged agents exist."""
        wait_until(self.register_next, description="a registration is acknowledged")
        response = httpx2.get(f"{self._replica.url}/agents", timeout=REQUEST_TIMEOUT_S)
        assert response.status_code == 200
        assert {agent["id"] for agent in response.json()["agents"]} == self._acknowledged


def test_no_loss_of_a_host_or_volume_loses_data() -> None:
    """The primary dies and returns, volumes are lost, all hosts stop at once, and the password changes."""
    with RedisHosts() as hosts:
        first, *others = hosts.all
        assert hosts.wait_for_leader(*hosts.all) is first
        with Replica(hosts.url, REGISTRY_WRITE_ACKS="1") as replica:
            mesh = Mesh(replica)
            mesh.verify()

            first.kill()
            mesh.verify()
            first.start()
            hosts.wait_for_leader(*others)
            mesh.verify()

            # The first host, which is the initial primary, restarts with an empty volume.
            first.kill()
            first.lose_volume()
            first.start()
            leader = hosts.wait_for_leader(*others)
            mesh.verify()

            # The current primary restarts with an empty volume before the Sentinels detect its failure.
            leader.kill()
            leader.lose_volume()
            leader.start()
            hosts.wait_for_leader(*(host for host in hosts.all if host is not leader))
            mesh.verify()

            for host in hosts.all:
                host.kill()
            for host in hosts.all:
                host.start()
            hosts.wait_for_leader(*hosts.all)
            mesh.verify()
        # The password changes: all hosts and the replica restart with the new one.
        for host in hosts.all:
            host.kill()
            host.password = f"{host.password}0"
            host.start()
        hosts.wait_for_leader(*hosts.all)
        with Replica(hosts.url, REGISTRY_WRITE_ACKS="1") as replica:
            mesh.use_replica(replica)
            mesh.verify()
