"""Name server with answers that a test controls, and the command prefix of a process that uses it."""

import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import pytest

_PORT, _TYPE_A, _HEADER_BYTES, _MAX_QUERY_BYTES = 53, 1, 12, 512
# A response to one recursive query, with recursion available and no error.
_RESPONSE_FLAGS = 0x8180

needs_own_name_server: Final = pytest.mark.skipif(
    shutil.which("unshare") is None or not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="a process with a name server of its own requires unshare and root",
)


class DnsServer:
    """Answers each query for an IPv4 address with `answer(name)`; other queries have no result.

    `queries` are the names of the queries for IPv4 addresses, in order. As a context manager it listens.
    """

    def __init__(self, answer: Callable[[str], Sequence[str]]) -> None:
        self.queries: list[str] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # An address for each test process, because resolv.conf cannot name a port.
        self._address = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((self._address, _PORT))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", (self._address, _PORT))
        self._thread.join()
        self._socket.close()

    def command_prefix(self, directory: Path) -> tuple[str, ...]:
        """Return a prefix of a command whose process uses this server; `directory` is for a file of its own."""
        configuration = directory / "resolv.conf"
        configuration.write_text(f"nameserver {self._address}\noptions timeout:1 attempts:1\n", encoding="utf-8")
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        return "unshare", "--mount", "sh", "-c", script, str(configuration)

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(_MAX_QUERY_BYTES)
            if not query:
                return
            self._socket.sendto(self._respond(query), sender)

    def _respond(self, query: bytes) -> bytes:
        labels, at = [], _HEADER_BYTES
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        (kind,) = struct.unpack_from(">H", query, at + 1)
        addresses: Sequence[str] = ()
        if kind == _TYPE_A:
            self.queries.append(".".join(labels))
            addresses = self._answer(self.queries[-1])
        header = query[:2] + struct.pack(">HHHHH", _RESPONSE_FLAGS, 1, len(addresses), 0, 0)
        # Each record refers to the name in the question, which begins after the header; it expires at once.
        prefix = struct.pack(">HHHIH", 0xC000 | _HEADER_BYTES, _TYPE_A, 1, 0, 4)
        records = b"".join(prefix + socket.inet_aton(each) for each in addresses)
        return header + query[_HEADER_BYTES : at + 5] + records
