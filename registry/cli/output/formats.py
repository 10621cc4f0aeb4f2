"""The option --output of commands, and output as JSON and YAML."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from registry.cli.connection import Command
from registry.cli.output.terminal_safe import escape_document, is_terminal_safe

FORMATS = ("wide", "json", "yaml", "name")
_YAML_LINE_WIDTH = 2**16


def output_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option `--output` for a command; without it, the command prints a table."""
    return click.option(
        "--output", "-o", type=click.Choice(formats or FORMATS), help="Output format; default is a short table."
    )


def is_document(output: str | None) -> bool:
    """Return whether an output format prints the whole response, not a table or names."""
    return output in ("json", "yaml")


def print_document(document: object, output: str | None) -> None:
    """Print one document as indented JSON or as YAML."""
    click.echo(_to_yaml(document) if output == "yaml" else _to_json(document, indent=2), nl=output != "yaml")


def print_event(event: object, output: str | None) -> None:
    """Print one event of a stream, as JSON on one line or as a YAML document after `---`."""
    click.echo(f"---\n{_to_yaml(event)}" if output == "yaml" else _to_json(event), nl=output != "yaml")


def _to_json(document: object, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    return escape_document(
        json.dumps(document, ensure_ascii=not _stdout_is_utf8(), indent=indent, separators=separators)
    )


def _to_yaml(document: object) -> str:
    """Return a document as YAML, with control and hidden characters escaped in double quotes."""
    import yaml  # type: ignore[import-untyped]

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """YAML dumper that writes no anchors and quotes strings with control or hidden characters."""

        def ignore_aliases(self, _data: object) -> bool:
            return True

    def represent_string(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_terminal_safe(text) else '"')

    Dumper.add_representer(str, represent_string)
    return escape_document(
        str(
            yaml.dump(document, Dumper=Dumper, allow_unicode=_stdout_is_utf8(), sort_keys=False, width=_YAML_LINE_WIDTH)
        ),
        is_json=False,
    )


def _stdout_is_utf8() -> bool:
    """Return whether standard output can represent every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
