"""A GET is repeated only after a 503 of a Redis that responded too late."""

import httpx2
import pytest

from tests.support.http_calls import get_retried


@pytest.mark.parametrize(
    ("reasons", "status", "calls"),
    [
        ([], 200, 1),
        (["timeout"] * 2, 200, 3),
        (["timeout"] * 9, 503, 4),
        (["auth"], 503, 1),
        (["timeout", "auth"], 503, 2),
    ],
)
async def test_a_get_is_repeated_while_redis_responds_too_late(reasons: list[str], status: int, calls: int) -> None:
    """An error for another reason is not hidden, nor is a Redis that never responds."""
    requests = list[httpx2.Request]()
    remaining = iter(reasons)

    def respond(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        reason = next(remaining, None)
        body = {"error": "store_unavailable", "reason": reason}
        return (
            httpx2.Response(503, json=body, headers={"retry-after": "1"}) if reason else httpx2.Response(200, json={})
        )

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(respond), base_url="http://registry") as client:
        response = await get_retried(client, "/agents")

    assert (response.status_code, len(requests)) == (status, calls)
