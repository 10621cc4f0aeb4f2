"""The limit of failed calls: ten a minute for each client address."""

from registry.compat.mcpmesh.proxy.failure_limit import MAX_FAILURES, FailureLimit


class Clock:
    """A clock that a test sets, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_the_eleventh_call_within_a_minute_is_rejected() -> None:
    """Until a minute after the first of the last ten failures; other clients are not affected."""
    clock = Clock()
    limit = FailureLimit(clock)
    for _ in range(MAX_FAILURES):
        assert limit.retry_after("10.0.0.1") is None
        limit.record_failure("10.0.0.1")
        clock.now += 1.5

    assert limit.retry_after("10.0.0.1") == 45
    assert limit.retry_after("10.0.0.2") is None
    clock.now += 45
    assert limit.retry_after("10.0.0.1") is None
    limit.record_failure("10.0.0.1")
    assert limit.retry_after("10.0.0.1") == 2


def test_the_addresses_of_one_ipv6_network_count_together() -> None:
    """A machine may choose any address of its /64 network for each call."""
    limit = FailureLimit(Clock())
    for number in range(MAX_FAILURES):
        limit.record_failure(f"2001:db8::{number:x}")

    assert limit.retry_after("2001:db8::ffff") == 60
    assert limit.retry_after("2001:db8:0:1::") is None


def test_ipv4_addresses_of_a_port_for_both_families_are_different_clients() -> None:
    """A socket that listens on `::` shows them as `::ffff:10.0.0.1`, all in one /64 network."""
    limit = FailureLimit(Clock())
    for _ in range(MAX_FAILURES):
        limit.record_failure("::ffff:10.0.0.1")

    assert limit.retry_after("10.0.0.1") == 60
    assert limit.retry_after("::ffff:10.0.0.2") is None


def test_a_client_without_an_ip_address_is_limited() -> None:
    """A caller on a unix socket has none."""
    limit = FailureLimit(Clock())
    for _ in range(MAX_FAILURES):
        limit.record_failure("")

    assert limit.retry_after("") == 60
