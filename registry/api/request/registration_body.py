"""Registers the agent of a request document and builds the fields of the response."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from registry.api.request.query_params import header
from registry.model.registration.parse import parse_registration
from registry.model.registration.warnings import RegistrationWarning
from registry.service.registration.registration_service import RegistrationService


async def register_document(
    registrations: RegistrationService,
    document: object,
    headers: Mapping[str, str],
    scope: Scope,
    field_prefix: str = "",
) -> dict[str, Any]:
    """Register the agent described by a request document, and return the fields of the response.

    Errors and warnings prefix fields with `field_prefix`; `headers` may have the preconditions `if-match` and
    `if-none-match`.
    """
    registered = await registrations.register_and_resolve(
        parse_registration(document, field_prefix, lambda: is_remote(scope)),
        if_match=headers.get("if-match"),
        if_none_match=headers.get("if-none-match"),
        path=field_prefix,
    )
    return {
        "agent_id": registered.agent_id,
        "resource_version": str(registered.version),
        "message": f"Agent {registered.name} registered successfully",
        **({} if registered.resolution is None else registered.resolution.response_fields),
        **({"warnings": [warning_fields(each) for each in registered.warnings]} if registered.warnings else {}),
    }


def warning_fields(warning: RegistrationWarning) -> dict[str, str]:
    """Return a warning as the fields of its JSON object."""
    return {name: text for name, text in warning._asdict().items() if text is not None}


def is_remote(scope: Scope) -> bool:
    """Return whether a request was sent from another host, behind a proxy as the proxy reports it."""
    client, server = scope.get("client"), scope.get("server")
    # Only a warning depends on it, so the header needs no trust.
    forwarded = header(scope, b"x-forwarded-for")
    host = forwarded.partition(",")[0].strip() if forwarded else client[0] if client else ""
    if not host or (server is not None and host == server[0]):
        return False
    try:
        return not ipaddress.ip_address(host.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False
