"""The continue token of a paged list: the position of the next page, with the version and the query of the list."""

import base64
import hashlib
from dataclasses import replace

import orjson

from registry.api.request.query_params import invalid
from registry.model.label_selector import LabelSelector
from registry.model.query import AgentQuery

# Score, namespace and id of the last row of a page.
Position = tuple[float, str, str]


def encode_continue_token(digest: str, page_version: int, last_position: Position) -> str:
    """Return the continue token with which a client requests the next page of a list."""
    return base64.urlsafe_b64encode(orjson.dumps([digest, page_version, *last_position])).decode().rstrip("=")


def decode_continue_token(token: str, digest: str) -> tuple[Position, int]:
    """Return the position and the version in a continue token. Raises MalformedRequest for another query."""
    try:
        token_digest, page_version, score, namespace, agent_id = orjson.loads(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        )
        position, version = (float(score), str(namespace), str(agent_id)), int(page_version)
    except (ValueError, TypeError) as error:
        raise invalid("continue", "is not a valid continue token; restart without it") from error
    if token_digest != digest:
        raise invalid("continue", "belongs to a different query; send the same filters as for the first page")
    return position, version


def query_digest(query: AgentQuery, fields: tuple[str, ...]) -> str:
    """Return the digest that identifies a query and its fields, equal on all replicas."""
    # The repr of the sets in a selector differs between processes; its text is the same on all replicas.
    text = f"{query.selector.text} {replace(query, selector=LabelSelector())!r} {fields!r}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
