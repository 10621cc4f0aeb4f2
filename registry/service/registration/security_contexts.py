"""Security contexts: each requires capabilities of the agents that register under it."""

from collections.abc import Collection, Mapping

from registry.errors import Detail


class SecurityContexts:
    """The known contexts and the capabilities each requires."""

    def __init__(self, required: Mapping[str, frozenset[str]]) -> None:
        self._required = required

    def problems(self, context: str, capabilities: Collection[str]) -> list[Detail]:
        """Return why an agent with these capabilities may not register under this context, empty if it may."""
        required = self._required.get(context)
        if required is None:
            known = ", ".join(sorted(self._required))
            return [Detail("security_context", f"unknown context {context[:60]!r}; known are {known}")]
        missing = sorted(required.difference(capabilities))
        if missing:
            return [
                Detail(
                    "capabilities",
                    f"security_context {context} also requires the capabilities {', '.join(missing)}",
                )
            ]
        return []
