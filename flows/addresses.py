"""Addresses of servers and databases: as people may see them, and as they are asked."""

import base64
import os
import re
import urllib.request
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

_HIDDEN = "***"
_ADDRESSES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "EVERGREEN_ARTIFACTS")
_SECRETS = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY")
# what of a connection's settings tells where and how, and never who may
_PLAIN = frozenset({"sslmode", "ssl", "connect_timeout", "application_name", "host", "port", "dbname", "user", "charset", "region"})


def shown(uri: str) -> str:
    """An address without what lets one in: user's password or token, and the values of its query and fragment.

    A password with a slash, an @ or a ? in it should have been percent-encoded and is a password all the same: up to the last @
    nothing is told but the user. What is hidden for no reason, as in a path with an @, does no harm.

    >>> shown("postgresql://ann:pass/word@x?@host:5432/db?password=hush&sslmode=require")
    'postgresql://ann:***@host:5432/db?password=***&sslmode=require'
    >>> shown("http://host:5000"), shown("https://token@host/path#key"), shown("sqlite:////home/ann@work/mlflow.db")
    ('http://host:5000', 'https://***@host/path#***', 'sqlite:////home/ann@work/mlflow.db')
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        scheme, rest = "", scheme
    before, at, after = ("", "", rest) if rest.startswith("/") else rest.rpartition("@")
    user, colon, _ = before.partition(":")
    who = f"{user}:{_HIDDEN}@" if colon else f"{_HIDDEN}@" if at else ""
    after, sharp, _ = after.partition("#")
    where, query, values = after.partition("?")
    told = "&".join(_pair(name, value) for name, value in parse_qsl(values, keep_blank_values=True))
    return f"{scheme}{mark}{who}{where}{query}{told}{sharp and f'#{_HIDDEN}'}"


def hushed(text: str) -> str:
    """What a library says, without what lets one in to the servers and databases that our environment names."""
    for name in _ADDRESSES:
        if given := os.environ.get(name):
            text = text.replace(given, shown(given))
            for secret in _secrets(given):
                text = text.replace(secret, _HIDDEN)
    for name in _SECRETS:
        if given := os.environ.get(name):
            text = text.replace(given, _HIDDEN).replace(base64.b64encode(given.encode()).decode(), _HIDDEN)
    return text


def request(url: str) -> urllib.request.Request:
    """A request for `url`; user and password go into a header, since urllib takes them for a part of the host.

    Raises:
        ValueError: it is not the address of a web server.
    """
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"([^:\[\]@]+|\[[0-9a-fA-F:.]+\])(:[1-9]\d{0,4})?", host):
        told = "not the address of a web server, such as http://host:5000"
        raise ValueError(f"{told}; in a password / is written %2F, @ %40, ? %3F and # %23")
    asked = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    if at:
        asked.add_header("Authorization", f"Basic {base64.b64encode(unquote(who).encode()).decode()}")
    return asked


def _secrets(uri: str) -> list[str]:
    """The password of an address, its parts, and the hidden values of its query; none so short that it stands in words."""
    before, _, after = uri.partition("://")[2].rpartition("@")
    password = before.partition(":")[2] or before
    after, _, fragment = after.partition("#")
    values = [value for name, value in parse_qsl(after.partition("?")[2]) if name.lower() not in _PLAIN]
    whole = (password, unquote(password), fragment, *values)
    parts = [part for each in whole for part in re.split(r"[/@?#:]", each)]  # where a parser that was misled ends it
    return sorted((secret for secret in (*whole, *parts) if len(secret) > 3), key=len, reverse=True)


def _pair(name: str, value: str) -> str:
    return f"{quote(name)}={quote(value, safe='') if name.lower() in _PLAIN else _HIDDEN}"
