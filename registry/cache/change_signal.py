"""The signal that wakes the reflector before its next poll is due."""

import asyncio


class ChangeSignal:
    """Set by the change notifier for each change, and by reads that need the newest version.

    Only `notify` counts as an announced change; `wake` ends the wait without one.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._notified = False

    def notify(self) -> None:
        """Announce a change of the log."""
        self._notified = True
        self._event.set()

    def wake(self) -> None:
        """End the wait for a read that needs the newest version."""
        self._event.set()

    def take(self) -> bool:
        """Reset the signal, and return whether a change was announced since the last call."""
        notified, self._notified = self._notified, False
        self._event.clear()
        return notified

    async def wait(self, timeout: float) -> None:
        """Wait until the signal is set, for at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return
