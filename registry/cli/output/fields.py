"""One thing in detail: a line for each of its fields."""

from collections.abc import Mapping

import click

from registry.cli.output.tables import format_cell


def print_fields(fields: Mapping[str, object]) -> None:
    """Write each field on a line of its own; `-` where there is nothing."""
    width = max(map(len, fields)) + 3
    for name, value in fields.items():
        click.echo(f"{name + ':':<{width}}{format_cell(value)}")
