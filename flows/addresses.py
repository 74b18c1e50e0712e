"""Addresses of servers and databases as people may see them."""

from urllib.parse import parse_qsl, quote

_HIDDEN = "***"
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
    before, at, after = ("", "", rest) if not mark or rest.startswith("/") else rest.rpartition("@")
    user, colon, _ = before.partition(":")
    who = f"{user}:{_HIDDEN}@" if colon else f"{_HIDDEN}@" if at else ""
    after, sharp, _ = after.partition("#")
    where, query, values = after.partition("?")
    told = "&".join(_pair(name, value) for name, value in parse_qsl(values, keep_blank_values=True))
    return f"{scheme}{mark}{who}{where}{query}{told}{sharp and f'#{_HIDDEN}'}"


def _pair(name: str, value: str) -> str:
    return f"{quote(name)}={quote(value, safe='') if name.lower() in _PLAIN else _HIDDEN}"
