"""The URL of Redis: its forms, its errors, and no password in messages about it."""

import pytest

from registry.config.redis_url import RedisUrl, parse_redis_url

OURS, ODD, THEIRS = "p", "p@s", "sp"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("redis://db", RedisUrl("server", (("db", 6379),))),
        ("redis://u:p%40s@db:1/3", RedisUrl("server", (("db", 1),), db=3, username="u", password=ODD)),
        ("redis://:p@[::1]:7", RedisUrl("server", (("::1", 7),), password=OURS)),
        ("redis://db?db=2&password=p", RedisUrl("server", (("db", 6379),), db=2, password=OURS)),
        ("rediss://db/0", RedisUrl("server", (("db", 6379),), tls_options={})),
        (
            "rediss://db?ssl_ca_certs=/ca.crt&ssl_check_hostname=no",
            RedisUrl("server", (("db", 6379),), tls_options={"ssl_ca_certs": "/ca.crt", "ssl_check_hostname": False}),
        ),
        ("unix:///run/a%20b.sock?db=1", RedisUrl("socket", path="/run/a b.sock", db=1)),
        ("unix://u:p@/run/s", RedisUrl("socket", path="/run/s", username="u", password=OURS)),
        (
            "redis+sentinel://u:p@a,b:1,[::1]:2/svc/4?sentinel_username=su&sentinel_password=sp",
            RedisUrl(
                "sentinel",
                (("a", 26379), ("b", 1), ("::1", 2)),
                db=4,
                username="u",
                password=OURS,
                service_name="svc",
                sentinel_username="su",
                sentinel_password=THEIRS,
            ),
        ),
        ("rediss+sentinel://a/svc", RedisUrl("sentinel", (("a", 26379),), service_name="svc", tls_options={})),
        ("redis+cluster://a,b:1", RedisUrl("cluster", (("a", 6379), ("b", 1)))),
        ("rediss+cluster://a/0", RedisUrl("cluster", (("a", 6379),), tls_options={})),
    ],
)
def test_each_form_is_read(text: str, read: RedisUrl) -> None:
    """With its defaults: the usual port, database 0, no user."""
    assert parse_redis_url(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "db",
        "http://db",
        "redis://",
        "redis://a,b",
        "redis://db/x",
        "redis://db:0",
        "redis://db:99999",
        "redis://db#x",
        "redis://d b",
        "unix://",
        "unix://host/run/s",
        "redis+sentinel://a,b",
        "redis+sentinel://a,/svc",
        "redis+sentinel:///svc",
        "redis+sentinel://a/svc/x",
        "redis+cluster://a/1",
        "redis+cluster://a:x",
        "redis+cluster://",
    ],
)
def test_an_invalid_url_is_rejected_with_all_valid_forms(text: str) -> None:
    """So that users do not have to look them up."""
    with pytest.raises(
        ValueError, match=r"expected redis://host:6379/0, rediss://.*redis\+sentinel://.*redis\+cluster://"
    ):
        parse_redis_url(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("redis://db?pasword=hush", "unknown or repeated option 'pasword'"),
        ("redis://db?ssl_ca_certs=/ca", "unknown or repeated option 'ssl_ca_certs'"),
        ("redis://db?sentinel_password=hush", "unknown or repeated option 'sentinel_password'"),
        ("redis+cluster://db?db=1", "unknown or repeated option 'db'"),
        ("redis://db?db=1&db=2", "unknown or repeated option 'db'"),
        ("redis://db?db=x", "invalid value of option 'db'"),
        ("redis://db?password=", "invalid value of option 'password'"),
        ("rediss://db?ssl_cert_reqs=perhaps", "invalid value of option 'ssl_cert_reqs'"),
    ],
)
def test_an_error_names_the_invalid_option(text: str, problem: str) -> None:
    """A misspelt option would be ignored without notice; its value may be a secret."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_redis_url(text)

    assert "hush" not in str(caught.value)


def test_the_printed_url_shows_no_password() -> None:
    """Neither that of Redis, nor of the Sentinels, nor of a key file."""
    url = "rediss+sentinel://u:hush@a/svc?sentinel_password=hush&ssl_keyfile=/key&ssl_password=hush"

    assert "hush" not in repr(parse_redis_url(url))
