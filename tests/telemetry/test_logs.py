"""One line per event in both forms, ours and the libraries', and no secret in any."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from registry.config.env import load_settings
from registry.telemetry import configure_logs, get_logger

LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "redis")


class Terminal(io.StringIO):
    """A stream in front of a person."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture(autouse=True)
def _untouched_elsewhere() -> Iterator[None]:
    """Put the process-wide configuration back, which other tests of this worker share."""
    loggers = [logging.getLogger(), *map(logging.getLogger, LIBRARIES)]
    before = [(logger, [*logger.handlers], logger.level, logger.propagate) for logger in loggers]
    # `basicConfig(force=True)` closes what it replaces; the test runner's handlers are to live on.
    logging.getLogger().handlers.clear()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def configured(level: str = "info", log_format: str = "json") -> io.StringIO:
    """Configure logs that go to the stream given back."""
    stream = io.StringIO()
    configure_logs(level, log_format, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read the JSON lines of a stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_time_level_event_logger_and_its_facts() -> None:
    """What a person looks for first comes first."""
    stream = configured()

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


def test_a_logger_made_before_the_configuration_follows_it() -> None:
    """Modules make their loggers when they are imported."""
    log = get_logger("early")

    stream = configured()
    log.info("now")

    assert [line["event"] for line in lines(stream)] == ["now"]


async def test_context_such_as_the_request_id_is_in_every_line_of_its_task() -> None:
    """Libraries' lines included; nothing leaks into another task."""
    stream = configured()
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
    ("level", "kept"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_holds_for_our_events_and_for_those_of_libraries(level: str, kept: list[str]) -> None:
    """One setting for both."""
    stream = configured(level)

    for logger in (get_logger("x"), logging.getLogger("redis")):
        logger.debug("line")
        logger.info("line")
        logger.warning("line")
        logger.error("line")

    assert [line["level"] for line in lines(stream)] == [*kept, *kept]


def test_an_unknown_level_is_refused() -> None:
    """Before anything is configured."""
    with pytest.raises(KeyError):
        configure_logs("loud", "json")


def test_a_library_logs_through_the_same_renderer() -> None:
    """Its arguments are filled in, its extras stay out."""
    stream = configured()

    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7, extra={"color_message": "x"})

    [line] = lines(stream)
    assert (line["level"], line["event"]) == ("info", "Started server process [7]")
    assert line["logger"] == "uvicorn.error"
    assert set(line) == {"timestamp", "level", "event", "logger"}


def test_uvicorn_writes_no_access_lines_and_has_no_handlers_of_its_own() -> None:
    """Else each line would come twice, and each request cost one."""
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    stream = configured("debug")

    access = logging.getLogger("uvicorn.access")
    access.info("GET /agents")

    assert stream.getvalue() == ""
    assert not access.hasHandlers()
    assert not logging.getLogger("uvicorn").handlers


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_an_exception_is_text_without_the_values_of_variables(log_format: str) -> None:
    """Variables hold tokens; the source line alone is shown."""
    stream = configured(log_format=log_format)

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
    """Whichever way somebody logs them."""
    stream = configured(log_format=log_format)
    settings, _ = load_settings({"AUTH_TOKEN": "t0ps3cret", "REDIS_URL": "redis://:t0ps3cret@db:6379"})

    get_logger("x").info("starting", settings=settings, token=settings.auth_token, shown=settings.masked())

    assert "***" in stream.getvalue()
    assert "t0ps3cret" not in stream.getvalue()


@dataclass
class Odd:
    """A value that only Python knows."""

    name: str


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Odd("x"), "Odd(name='x')"),
        ({1: "a"}, "{1: 'a'}"),
        ("a\ud800b", "a\\ud800b"),
        (2**70, str(2**70)),
        (b"\xff", "b'\\xff'"),
        ("a\nb", "a\nb"),
        (float("nan"), None),
    ],
)
def test_no_value_can_lose_a_line(value: object, shown: object) -> None:
    """A logger that raises takes the request down with it."""
    stream = configured()

    get_logger("x").info("odd", value=value)

    [line] = lines(stream)
    assert (line["event"], line["level"], line["value"]) == ("odd", "info", shown)


def test_auto_is_pretty_and_coloured_on_a_terminal_and_json_elsewhere() -> None:
    """The stream itself says who reads it."""
    terminal = Terminal()
    configure_logs("info", "auto", terminal)
    get_logger("x").info("hello", agent="a-1")

    elsewhere = configured(log_format="auto")
    get_logger("x").info("hello", agent="a-1")

    assert "\x1b[" in terminal.getvalue()
    assert "hello" in terminal.getvalue()
    assert lines(elsewhere)[0]["agent"] == "a-1"


def test_pretty_has_no_colours_where_nobody_sees_them() -> None:
    """Escape codes in a file are noise."""
    stream = configured(log_format="pretty")

    get_logger("x").info("hello", agent="a-1")

    assert "\x1b[" not in stream.getvalue()
    assert "agent=a-1" in stream.getvalue()


def test_without_a_stream_lines_go_to_standard_error_as_it_is_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced stream may be closed, and loggers keep what they found."""
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
