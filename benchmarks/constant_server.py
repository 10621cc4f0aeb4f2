"""The server with which all results are compared: a bare Starlette route with a constant response.

`python -m benchmarks.constant_server` prints the port it listens on and serves until it is stopped.
"""

import asyncio
import socket

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONSTANT_BODY = b'{"status":"success","answer":"constant"}'


async def constant(_request: Request) -> Response:
    """Return 40 bytes of JSON."""
    return Response(CONSTANT_BODY, media_type="application/json")


def main() -> None:
    """Run the server with the registry's configuration of uvicorn."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    app = Starlette(routes=[Route("/constant", constant)])
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
