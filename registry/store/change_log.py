"""The change log in Redis: where it stands, what came since, and the whole state it leads to."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ResponseError

from registry.model.agent import Held
from registry.model.change import Change, Position, Pulled
from registry.store.codec import BadRecordError, agent_from, change_from, pairs, version_of
from registry.store.keys import Keys, told
from registry.store.redis.pipeline import Link, checked
from registry.store.scripts import load_scripts
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Entries a pull takes at once: with specs of 1.5 KB about 3 MB.
_PULL = 1000
_SCAN = 500


class ChangeLog:
    """Reads the log of one mesh over a link of its own. `history` is how many entries the log keeps."""

    def __init__(self, keys: Keys, history: int, link: Link, *, shebang: bool = True) -> None:
        self._keys = keys
        self._keep = history
        self._link = link
        self._connection = 0
        scripts = load_scripts(shebang=shebang)
        self._open, self._sever = scripts["open"], scripts["sever"]

    async def open(self) -> Position:
        """Return where the mesh stands; begin a history where version, history or log is missing."""
        call = self._open.call(self._keys.shared, {"fresh": secrets.token_hex(8), "keep": self._keep})
        word, version, history = checked((await self._link.run([call]))[0])
        self._connection = self._link.opened
        if word == b"begun":
            log.info("a new history begins", version=int(version), history=history.decode())
        return Position(int(version), history.decode())

    async def pull(self, after: int, mark: object = None) -> Pulled:
        """Ask the one question all reads share: the version and history now, and the log from entry `after` on.

        `mark` is how that entry read the last time, None if it was not read yet.
        """
        version, history, entries = await self._link.exchange(
            [
                ("GET", self._keys.version),
                ("GET", self._keys.history),
                ("XRANGE", self._keys.log, f"{after}-0", "+", "COUNT", _PULL),
            ]
        )
        found = checked(entries)
        # Behind a new connection may stand another server, with another past under the same numbers.
        same = self._link.opened == self._connection
        holds = same and bool(found) and version_of(found[0][0]) == after and mark in (None, found[0])
        changes = _readable(found[1:]) if holds else ()
        return Pulled(
            version=int(checked(version) or 0),
            history=(checked(history) or b"").decode(),
            holds=holds,
            changes=changes,
            mark=found[len(changes)] if holds else None,
        )

    async def entry(self, version: int) -> Change | None:
        """Return one entry of the log; None when it is not there, or cannot be read."""
        (found,) = await self._link.exchange([("XRANGE", self._keys.log, f"{version}-0", f"{version}-0")])
        return next(iter(_readable(checked(found))), None)

    async def sever(self, history: str, seen: int) -> bool:
        """Give up a history whose log lost entry `seen`, unless that was only trimmed; return whether that was done."""
        call = self._sever.call(self._keys.shared, {"known": history, "seen": seen})
        (word,) = checked((await self._link.run([call]))[0])
        return bool(word == b"severed")

    async def scan(self) -> AsyncIterator[list[Held]]:
        """Read every agent, a slice at a time. Those that change meanwhile may come old or new, or twice."""
        cursor = b"0"
        while True:
            (reply,) = await self._link.exchange([("ZSCAN", self._keys.deadlines, cursor, "COUNT", _SCAN)])
            cursor, flat = checked(reply)
            ids = flat[::2]
            for at in range(0, len(ids), _SCAN):
                yield await self._read(ids[at : at + _SCAN])
            if cursor == b"0":
                return

    async def _read(self, ids: list[bytes]) -> list[Held]:
        scores, *hashes = await self._link.exchange(
            [
                ("ZMSCORE", self._keys.heartbeats, *ids),
                *(("HGETALL", self._keys.agent(told(agent_id))) for agent_id in ids),
            ]
        )
        held = []
        for agent_id, score, flat in zip(ids, checked(scores), hashes, strict=True):
            try:
                fields = pairs(checked(flat))
                if fields:
                    held.append(Held(agent_from(agent_id.decode(), fields), None if score is None else int(score)))
            except (BadRecordError, ResponseError, ValueError) as error:
                # One bad record must never hide the others.
                log.warning(
                    "agent left out: its record is damaged; register it anew", agent_id=repr(agent_id), error=str(error)
                )
        return held


def _readable(entries: list[Any]) -> tuple[Change, ...]:
    """Read entries up to the first that cannot be read; the gap it leaves makes the feed fill anew."""
    changes = []
    for entry in entries:
        try:
            changes.append(change_from(entry))
        except BadRecordError as error:
            log.warning("log entry cannot be read; the cache will be filled anew", error=str(error))
            break
    return tuple(changes)
