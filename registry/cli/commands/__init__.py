"""The commands that call a registry, one module per command or group of related commands."""

from registry.cli.commands.agent import agent
from registry.cli.commands.agents import agents
from registry.cli.commands.capabilities import capabilities
from registry.cli.commands.completion import completion
from registry.cli.commands.drain_and_unregister import drain, undrain, unregister
from registry.cli.commands.end_self_preservation import end_self_preservation
from registry.cli.commands.health import health
from registry.cli.commands.register import register
from registry.cli.commands.resolve import resolve
from registry.cli.commands.watch import watch

COMMANDS = (
    agents,
    agent,
    capabilities,
    watch,
    register,
    unregister,
    drain,
    undrain,
    resolve,
    health,
    end_self_preservation,
    completion,
)
