"""Redis in a container, started by testcontainers for `pytest --redis=docker`."""

import contextlib
import os
import warnings
from collections.abc import Iterator

import redis

from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until

IMAGE = os.environ.get("TEST_REDIS_IMAGE", "redis:7-alpine")


class DockerUnavailableError(Exception):
    """Docker is not available; the message has the error."""


@contextlib.contextmanager
def docker_redis() -> Iterator[str]:
    """Run a server in a container and provide its URL. Raises DockerUnavailableError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers imports deprecated names
        from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415 - only on demand
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only on demand

        try:
            container = DockerContainer(IMAGE).with_exposed_ports(6379).start()
        except (DockerException, OSError) as error:
            raise DockerUnavailableError(f"Docker is not available ({error}); omit --redis=docker") from error
    try:
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
        wait_until(lambda: _responds(url), description=f"Redis responds at {url}")
        yield url
    finally:
        container.stop()


def _responds(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=REQUEST_TIMEOUT_S) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
