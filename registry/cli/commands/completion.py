"""`mcp-mesh-registry completion`: what a shell must be told so that it completes commands, options and names."""

import click
from click.shell_completion import get_completion_class

_PROGRAM_NAME = "mcp-mesh-registry"
_COMPLETE_VARIABLE = "_MCP_MESH_REGISTRY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Write the completion script of a shell.

    bash: eval "$(mcp-mesh-registry completion bash)" in ~/.bashrc; zsh likewise in ~/.zshrc; fish:
    mcp-mesh-registry completion fish > ~/.config/fish/completions/mcp-mesh-registry.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"This click knows no completion for {shell}; update it")
    click.echo(kind(ctx.find_root().command, {}, _PROGRAM_NAME, _COMPLETE_VARIABLE).source())
