"""Logging of the registry and of its libraries: one line per event, as JSON or as coloured text."""

import contextlib
import logging
import sys
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger


class _CurrentStderr:
    """A stream that writes to the current `sys.stderr`, even if it was replaced after a logger was created."""

    def write(self, text: str, /) -> int:
        try:
            return sys.stderr.write(text)
        except BrokenPipeError:  # a closed log must not stop the program
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; its lines contain `logger: <name>`. May be called before `configure_logs`."""
    return cast("FilteringBoundLogger", structlog.get_logger(logger_name=name))


def configure_logs(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Write every log event of `level` and above to `stream` (None: standard error), one line for each event.

    `level` is a level of `logging`, in lower case; `log_format` is `json`, `pretty` or `auto` (pretty on a terminal).
    Call it once, before the first event: a logger caches its configuration at its first use. uvicorn must be started
    with `log_config=None`, because it would restore its own handlers. Raises KeyError for an unknown level.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stream = cast("TextIO", _CurrentStderr()) if stream is None else stream
    pretty = log_format == "pretty" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks are plain in both formats: rich ones print local variables, which may be tokens.
    console = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    render: list[Processor] = [console] if pretty else [structlog.processors.format_exc_info, _render_json]
    structlog.configure(
        processors=shared + render,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
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
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    _configure_library_loggers()


def _configure_library_loggers() -> None:
    # The MCP SDK logs each request and each error of a client.
    logging.getLogger("mcp").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.NOTSET)  # an earlier server in this process may have set its own level
        # uvicorn builds no access lines if their logger has no handler.
        library.propagate = name != "uvicorn.access"


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    # Events of the registry have `logger_name`, events of libraries `logger`, which structlog reserves for itself.
    line["logger"] = event.pop("logger_name", None) or event.pop("logger", None)
    line.update(event)
    try:
        # Dataclasses are written by their repr, which masks secrets; orjson would write every field.
        return orjson.dumps(line, default=repr, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except TypeError:
        # Lone surrogates, huge numbers or keys that are not strings: log an escaped line rather than none.
        return orjson.dumps({key: _escape(value) for key, value in line.items()}).decode()


def _escape(value: object) -> str:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else ascii(value)
