"""The forms of an answer: tables for people, JSON and YAML for programs, names for shells."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from registry.cli.errors import Trouble
from registry.cli.output.terminal_safe import escaped, is_harmless

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
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


def show_document(document: object, output: str | None) -> None:
    """Write one document, indented, as JSON or YAML."""
    click.echo(_yaml(document) if output == "yaml" else _json(document, indent=2), nl=output != "yaml")


def show_event(event: object, output: str | None) -> None:
    """Write one of many documents: JSON on a line of its own, YAML after `---`."""
    click.echo(f"---\n{_yaml(event)}" if output == "yaml" else _json(event), nl=output != "yaml")


def check_format(output: str | None) -> None:
    """Raise Trouble for a form that cannot be written here; before anything is changed, or is waited for."""
    if output == "yaml":
        _yaml(None)


def _json(document: object, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    return escaped(json.dumps(document, ensure_ascii=not _shows_all(), indent=indent, separators=separators))


def _yaml(document: object) -> str:
    """Return YAML in which what a terminal would obey stands escaped, in double quotes."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise Trouble("-o yaml needs: pip install 'mcp-mesh-registry[client]'") from error

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Writes no anchors, and quotes what is to be escaped."""

        def ignore_aliases(self, _data: object) -> bool:
            return True

    def quoted(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_harmless(text) else '"')

    Dumper.add_representer(str, quoted)
    return escaped(
        str(yaml.dump(document, Dumper=Dumper, allow_unicode=_shows_all(), sort_keys=False, width=_NO_FOLDING))
    )


_NO_FOLDING = 2**16


def _shows_all() -> bool:
    """Tell whether standard output takes every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
