"""Names that others chose: which may be, and how each border shows them so that they stay text.

Names of sets, domains, classes and sessions come from folders, tables and configs. They may hold any letter of any script and any sign;
what they do to a terminal, a Markdown page, a spreadsheet or a store is undone where they cross into it, and nowhere before.
"""

import hashlib
import re
import unicodedata

LONGEST = 200  # characters of a free name
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, marks that turn the direction, halves of pairs, ends of lines
_JOINERS = "\u200c\u200d"  # which Persian, Hindi and emoji are written with
_AXIS = 40  # characters
_KEY = 150  # bytes: a key becomes part of file names
_SPECIAL = re.compile(r"([\\`*\[\]|!~$])")


def usable(name: str) -> str:
    """A name as it is.

    Raises:
        ValueError: it is empty, too long, blank at an end, or holds what nobody can see.
    """
    if not name.strip() or name != name.strip():
        raise ValueError(f"the name {visible(name)!r} is empty or begins or ends with a space")
    if len(name) > LONGEST:
        raise ValueError(f"the name {visible(name[:20])}... has {len(name)} characters; at most {LONGEST} are usable")
    if name != visible(name):
        raise ValueError(f"the name {visible(name)} holds a character that cannot be seen; leave it out")
    return name


def visible(text: str, keep: str = "") -> str:
    r"""Text with what cannot be seen, or would move what is seen, written out: a terminal obeys ESC, and readers what turns the direction.

    >>> print(visible("a\x1b[2Jb\u202egpj.exe"), visible("two\nlines", keep="\n"))
    a\x1b[2Jb\u202egpj.exe two
    lines
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep or not _unseen(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter) in _HIDDEN and letter not in _JOINERS


def in_markdown(text: str) -> str:
    r"""Text that starts no markup, link, picture or HTML and ends no table cell.

    >>> print(in_markdown("a|b"), in_markdown("![x](http://host)"), in_markdown("<script>"), in_markdown("vr_lwf"))
    a\|b \!\[x\](http://host) &lt;script> vr_lwf
    """
    return _SPECIAL.sub(r"\\\1", visible(text.replace("\n", " "))).replace("&", "&amp;").replace("<", "&lt;")


def in_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula.

    >>> in_cell("=HYPERLINK(1)"), in_cell("-1 cat"), in_cell("cat")
    ("'=HYPERLINK(1)", "'-1 cat", 'cat')
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown


def in_figure(text: str) -> str:
    r"""Text that matplotlib takes for no formula, short enough for an axis.

    >>> print(in_figure("a$b$"), in_figure("x" * 300))
    a\$b\$ xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
    """
    shown = visible(text)
    return (shown if len(shown) <= _AXIS else f"{shown[: _AXIS - 1]}…").replace("$", r"\$")


def as_key(text: str) -> str:
    r"""Text as a key of MLflow: a path of letters, digits, dots, dashes and spaces, none of whose parts leads elsewhere.

    What had to be changed gets the start of its digest, so that two names never share a key; the @ of R@10 is written out.

    >>> as_key("top1/greek"), as_key("R@10/birds"), as_key("top1/a$b"), as_key("../a")
    ('top1/greek', 'R_at_10/birds', 'top1/a_b-473f1b', '_/a-61b4c9')
    """
    wanted = re.sub(r"^(\w+)@(\d+)(?=/|$)", r"\1_at_\2", text)
    parts = [re.sub(r"[^\w. -]+", "_", part).strip() for part in wanted.split("/")]
    key = "/".join("_" if set(part) <= {"."} else part for part in parts)
    short = key.encode()[:_KEY].decode(errors="ignore").rstrip("/ ")
    if key == short == wanted and not re.search("-[0-9a-f]{6}$", key):
        return key
    return f"{short}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def slug(text: str) -> str:
    """Lower case letters, digits and single dashes, as artifact keys, model names and names of files want them.

    >>> slug("Glyphs: joint vr_lwf")
    'glyphs-joint-vr-lwf'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "stream"
