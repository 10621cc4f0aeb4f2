"""A Redis Cluster of two real servers, whose slots can be moved."""

from types import TracebackType
from typing import Self

import redis

from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer


class TwoNodeCluster:
    """Two connected cluster nodes; all slots belong to the first until they are moved."""

    def __init__(self) -> None:
        # Without the second option a node without slots would become a replica.
        arguments = ("--cluster-enabled", "yes", "--cluster-allow-replica-migration", "no")
        self.nodes = [RedisServer(*arguments, tcp=True) for _ in range(2)]

    @property
    def url(self) -> str:
        """REDIS_URL with both nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        first, second = self.nodes
        first.make_single_node_cluster()
        with redis.Redis.from_url(first.url) as client:
            client.execute_command("CLUSTER MEET", "127.0.0.1", second.port, second.bus_port)
        wait_until(lambda: all(_is_complete(node) for node in self.nodes), description="the nodes are connected")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.stop()

    def move_slot(self, slot: int, to: int) -> None:
        """Move a slot with its keys to a node."""
        source, target = self.nodes[1 - to], self.nodes[to]
        self.start_moving_slot(slot, to)
        with redis.Redis.from_url(source.url) as source_client:
            while keys := source_client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                source_client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source):
            with redis.Redis.from_url(node.url) as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", _node_id(target))

    def start_moving_slot(self, slot: int, to: int) -> None:
        """Mark a slot as migrating to a node."""
        source, target = self.nodes[1 - to], self.nodes[to]
        with redis.Redis.from_url(target.url) as target_client, redis.Redis.from_url(source.url) as source_client:
            target_client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", _node_id(source))
            source_client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", _node_id(target))


def _node_id(node: RedisServer) -> str:
    with redis.Redis.from_url(node.url, decode_responses=True) as client:
        return str(client.execute_command("CLUSTER MYID"))


def _is_complete(node: RedisServer) -> bool:
    with redis.Redis.from_url(node.url) as client:
        info = client.cluster("INFO")
        return (info["cluster_state"], info["cluster_known_nodes"], info["cluster_slots_assigned"]) == (
            "ok",
            "2",
            "16384",
        )
