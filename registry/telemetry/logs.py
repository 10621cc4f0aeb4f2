"""One line per event, ours and the libraries': JSON for machines, colours for people."""

import contextlib
import logging
import sys
from typing import Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LOG_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _CurrentStderr:
    """Standard error as it is at the moment of writing: cached loggers outlive a replaced `sys.stderr`."""

    def write(self, text: str, /) -> int:
        try:
            return sys.stderr.write(text)
        except BrokenPipeError:  # nobody reads the log any more, which must not end what it tells of
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def get_logger(name: str) -> FilteringBoundLogger:
    """Give the logger of one module, whose lines carry `logger: <name>`; may come before `configure_logs`."""
    return cast("FilteringBoundLogger", structlog.get_logger(logger_name=name))


def configure_logs(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every event of `level` and above to `stream` (None: standard error), one line each.

    `level` is a key of `LOG_LEVELS`; `log_format` is `json`, `pretty` or `auto` (pretty on a terminal). Call it
    once, before the first event: a logger keeps what it finds at its first use. uvicorn must be started with
    `log_config=None`, or it puts its own handlers back.

    Raises:
        KeyError: an unknown level.
    """
    stream = cast("TextIO", _CurrentStderr()) if stream is None else stream
    pretty = log_format == "pretty" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks are plain in both forms: the prettier ones print local variables, and with them tokens.
    console = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    render: list[Processor] = [console] if pretty else [structlog.processors.format_exc_info, _render_json]
    structlog.configure(
        processors=shared + render,
        wrapper_class=structlog.make_filtering_bound_logger(LOG_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=LOG_LEVELS[level], force=True)
    _configure_library_loggers()


def _configure_library_loggers() -> None:
    # The MCP SDK tells of each request, and of each mistake of a client.
    logging.getLogger("mcp").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.NOTSET)  # a server that ran before in this process may have set its own
        # uvicorn builds no access lines at all when their logger reaches no handler.
        library.propagate = name != "uvicorn.access"


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    # Ours carry one key and the libraries' the other: `logger` is taken among structlog's own arguments.
    line["logger"] = event.pop("logger_name", None) or event.pop("logger", None)
    line.update(event)
    try:
        # Dataclasses go through their repr, which masks secrets; orjson on its own would write every field.
        return orjson.dumps(line, default=repr, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except TypeError:
        # Lone surrogates, huge numbers, keys that are no text: a strange line is better than a lost one.
        return orjson.dumps({key: _escape(value) for key, value in line.items()}).decode()


def _escape(value: object) -> str:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else ascii(value)
