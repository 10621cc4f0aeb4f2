"""The command `mcp-mesh-registry completion`, which prints a script for shell completion."""

import click
from click.shell_completion import get_completion_class

_PROGRAM_NAME = "mcp-mesh-registry"
_COMPLETE_VARIABLE = "_MCP_MESH_REGISTRY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(mcp-mesh-registry completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc; fish:
    mcp-mesh-registry completion fish > ~/.config/fish/completions/mcp-mesh-registry.fish
    """
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.ClickException(f"click has no completion for {shell}; update click")
    click.echo(completion_class(ctx.find_root().command, {}, _PROGRAM_NAME, _COMPLETE_VARIABLE).source())
