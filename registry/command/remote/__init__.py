"""The commands that call a registry, as an agent or an operator would."""

from registry.command.remote.agent import agent
from registry.command.remote.agents import agents, watch
from registry.command.remote.capabilities import capabilities
from registry.command.remote.completion import completion
from registry.command.remote.health import health
from registry.command.remote.register import register
from registry.command.remote.resolve import resolve
from registry.command.remote.service import drain, undrain, unregister

COMMANDS = (agents, agent, capabilities, watch, register, unregister, drain, undrain, resolve, health, completion)
