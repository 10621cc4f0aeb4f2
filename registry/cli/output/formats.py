"""The forms of an answer: tables for people, JSON and YAML for programs, names for shells."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from registry.cli.output.terminal_safe import escape_document, is_terminal_safe

# Slow imports happen when a command runs, so that --help stays fast.
# ruff: noqa: PLC0415

FORMATS = ("wide", "json", "yaml", "name")

Command = Callable[..., Any]


def output_option(*formats: str) -> Callable[[Command], Command]:
    """Let a command take `-o`: a table unless given, None then."""
    return click.option(
        "--output", "-o", type=click.Choice(formats or FORMATS), help="Instead of a table of what matters most."
    )


def is_document(output: str | None) -> bool:
    """Tell whether the answer is to be shown as it came."""
    return output in ("json", "yaml")


def print_document(document: object, output: str | None) -> None:
    """Write one document, indented, as JSON or YAML."""
    click.echo(_to_yaml(document) if output == "yaml" else _to_json(document, indent=2), nl=output != "yaml")


def print_event(event: object, output: str | None) -> None:
    """Write one of many documents: JSON on a line of its own, YAML after `---`."""
    click.echo(f"---\n{_to_yaml(event)}" if output == "yaml" else _to_json(event), nl=output != "yaml")


def _to_json(document: object, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    return escape_document(
        json.dumps(document, ensure_ascii=not _stdout_is_utf8(), indent=indent, separators=separators)
    )


def _to_yaml(document: object) -> str:
    """Return YAML in which what a terminal would obey stands escaped, in double quotes."""
    import yaml  # type: ignore[import-untyped]

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Writes no anchors, and quotes what is to be escaped."""

        def ignore_aliases(self, _data: object) -> bool:
            return True

    def quoted(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_terminal_safe(text) else '"')

    Dumper.add_representer(str, quoted)
    return escape_document(
        str(
            yaml.dump(document, Dumper=Dumper, allow_unicode=_stdout_is_utf8(), sort_keys=False, width=_YAML_LINE_WIDTH)
        )
    )


_YAML_LINE_WIDTH = 2**16


def _stdout_is_utf8() -> bool:
    """Tell whether standard output takes every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
