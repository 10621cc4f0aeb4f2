"""Registers the agent of a request document and builds the fields of the response."""

from collections.abc import Mapping
from typing import Any

from registry.model.registration.parse import parse_registration
from registry.service.registration.registration_service import RegistrationService


async def register_document(
    registrations: RegistrationService, document: object, headers: Mapping[str, str], field_prefix: str = ""
) -> dict[str, Any]:
    """Register the agent described by a request document, and return the fields of the response.

    Errors prefix fields with `field_prefix`; `headers` may have the preconditions `if-match` and `if-none-match`.
    """
    registered = await registrations.register_and_resolve(
        parse_registration(document, field_prefix),
        if_match=headers.get("if-match"),
        if_none_match=headers.get("if-none-match"),
        path=field_prefix,
    )
    return {
        "agent_id": registered.agent_id,
        "resource_version": str(registered.version),
        "message": f"Agent {registered.name} registered successfully",
        **({} if registered.resolution is None else registered.resolution.response_fields),
    }
