"""One line for each event of the registry or of a library, as JSON or pretty, without secrets."""

import asyncio
import io
import json
import logging
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from registry.config.env import load_settings
from registry.telemetry.logs import configure_logs, get_logger

pytestmark = pytest.mark.usefixtures("restored_log_configuration")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return that this is a terminal."""
        return True


def configured_stream(level: str = "info", log_format: str = "json") -> io.StringIO:
    """Configure logs that go to a new stream, and return the stream."""
    stream = io.StringIO()
    configure_logs(level, log_format, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read the JSON lines of a stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_time_level_event_logger_and_its_fields() -> None:
    """The keys that people search first come first."""
    stream = configured_stream()

    get_logger("registry.test").info("agent registered", agent="a-1", count=2)

    [line] = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "agent registered",
        "logger": "registry.test",
        "agent": "a-1",
        "count": 2,
    }


def test_a_logger_created_before_the_configuration_uses_it() -> None:
    """Modules create their loggers when they are imported."""
    log = get_logger("early")

    stream = configured_stream()
    log.info("now")

    assert [line["event"] for line in lines(stream)] == ["now"]


async def test_context_such_as_the_request_id_is_in_every_line_of_its_task() -> None:
    """Also in the lines of libraries, and not in those of another task."""
    stream = configured_stream()
    log = get_logger("x")

    async def request(request_id: str) -> None:
        structlog.contextvars.bind_contextvars(request_id=request_id)
        await asyncio.sleep(0)
        log.info("ours")
        logging.getLogger("redis").warning("theirs")

    await asyncio.gather(request("r-1"), request("r-2"))
    log.info("outside")

    seen = [(line["event"], line.get("request_id")) for line in lines(stream)]
    assert seen == [
        ("ours", "r-1"),
        ("theirs", "r-1"),
        ("ours", "r-2"),
        ("theirs", "r-2"),
        ("outside", None),
    ]


@pytest.mark.parametrize(
    ("level", "logged_levels"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_applies_to_our_events_and_to_those_of_libraries(level: str, logged_levels: list[str]) -> None:
    """One setting for both."""
    stream = configured_stream(level)

    for logger in (get_logger("x"), logging.getLogger("redis")):
        logger.debug("line")
        logger.info("line")
        logger.warning("line")
        logger.error("line")

    assert [line["level"] for line in lines(stream)] == [*logged_levels, *logged_levels]


def test_an_unknown_level_is_rejected() -> None:
    """Before any logging is configured."""
    with pytest.raises(KeyError):
        configure_logs("loud", "json")


def test_a_library_logs_through_the_same_renderer() -> None:
    """The event includes its arguments and not its extra fields."""
    stream = configured_stream()

    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7, extra={"color_message": "x"})

    [line] = lines(stream)
    assert (line["level"], line["event"]) == ("info", "Started server process [7]")
    assert line["logger"] == "uvicorn.error"
    assert set(line) == {"timestamp", "level", "event", "logger"}


def test_uvicorn_writes_no_access_lines_and_has_no_handlers_of_its_own() -> None:
    """Otherwise each line would be written twice, and each request would write one."""
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    stream = configured_stream("debug")

    access = logging.getLogger("uvicorn.access")
    access.info("GET /agents")

    assert stream.getvalue() == ""
    assert not access.hasHandlers()
    assert not logging.getLogger("uvicorn").handlers


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_an_exception_is_text_without_the_values_of_variables(log_format: str) -> None:
    """Variables may hold tokens; only the source line is shown."""
    stream = configured_stream(log_format=log_format)

    secret = "t0p" + "s3cret"

    def fail(token: str) -> None:
        raise ValueError(f"bad token of {len(token)} letters")

    for logger in (get_logger("x"), logging.getLogger("redis")):
        try:
            fail(secret)
        except ValueError:
            logger.exception("failed")

    text = stream.getvalue()
    assert text.count("bad token of 9 letters") == 2
    assert text.count("Traceback (most recent call last)") == 2
    assert secret not in text
    if log_format == "json":
        assert ["Traceback" in line["exception"] for line in lines(stream)] == [True, True]


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_settings_in_an_event_show_no_secret(log_format: str) -> None:
    """In the settings, in a secret and in the masked settings."""
    stream = configured_stream(log_format=log_format)
    settings, _ = load_settings({"AUTH_TOKEN": "t0ps3cret", "REDIS_URL": "redis://:t0ps3cret@db:6379"})

    get_logger("x").info("starting", settings=settings, token=settings.auth_token, shown=settings.masked())

    assert "***" in stream.getvalue()
    assert "t0ps3cret" not in stream.getvalue()


@dataclass
class NotJson:
    """A value that JSON cannot represent."""

    name: str


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (NotJson("x"), "NotJson(name='x')"),
        ({1: "a"}, "{1: 'a'}"),
        ("a\ud800b", "a\\ud800b"),
        (2**70, str(2**70)),
        (b"\xff", "b'\\xff'"),
        ("a\nb", "a\nb"),
        (float("nan"), None),
    ],
)
def test_any_value_can_be_logged(value: object, shown: object) -> None:
    """A logger that raises would fail the request."""
    stream = configured_stream()

    get_logger("x").info("odd", value=value)

    [line] = lines(stream)
    assert (line["event"], line["level"], line["value"]) == ("odd", "info", shown)


def test_auto_is_pretty_and_coloured_on_a_terminal_and_json_otherwise() -> None:
    """The registry detects a terminal from the stream."""
    terminal = Terminal()
    configure_logs("info", "auto", terminal)
    get_logger("x").info("hello", agent="a-1")

    file = configured_stream(log_format="auto")
    get_logger("x").info("hello", agent="a-1")

    assert "\x1b[" in terminal.getvalue()
    assert "hello" in terminal.getvalue()
    assert lines(file)[0]["agent"] == "a-1"


def test_pretty_has_no_colours_outside_a_terminal() -> None:
    """Escape codes are noise in a file."""
    stream = configured_stream(log_format="pretty")

    get_logger("x").info("hello", agent="a-1")

    assert "\x1b[" not in stream.getvalue()
    assert "agent=a-1" in stream.getvalue()


def test_without_a_stream_lines_go_to_the_current_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replaced stream may be closed, and loggers exist before the change."""
    log = get_logger("x")
    first, second = io.StringIO(), io.StringIO()

    monkeypatch.setattr(sys, "stderr", first)
    configure_logs("info", "auto")
    log.info("one")
    monkeypatch.setattr(sys, "stderr", second)
    first.close()
    log.info("two")
    logging.getLogger("redis").warning("three")

    assert [line["event"] for line in lines(second)] == ["two", "three"]
