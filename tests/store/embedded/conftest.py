"""The log events of the embedded server."""

import pytest
import structlog
from structlog.testing import LogCapture

from registry.store.embedded import server as embedded


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Capture the log events of the embedded server."""
    capture = LogCapture()
    monkeypatch.setattr(embedded, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture
