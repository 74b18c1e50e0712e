"""Words in sentences: lists that are cut, one and several, the name that was meant, names without what people mean nothing by."""

import difflib
import unicodedata
from collections.abc import Sequence


def some(words: Sequence[object], most: int = 3) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(str(w) for w in words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def either(words: Sequence[str]) -> str:
    """A choice.

    >>> either(["a", "b", "c"]), either(["a"])
    ('a, b or c', 'a')
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def plural(number: int, one: str, several: str = "") -> str:
    """A number with its noun, and its verb where that changes with it; `several`: of any number but one, by default with an s.

    >>> plural(1, "image"), plural(0, "image"), plural(1234, "image"), plural(1, "class waits", "classes wait")
    ('1 image', '0 images', '1,234 images', '1 class waits')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def did_you_mean(word: str, known: Sequence[str], most: int = 12) -> str:
    """A list of what there is, and the closest match where there is one.

    >>> did_you_mean("greke", ["greek", "latin"])
    'there are greek, latin; did you mean greek?'
    """
    close = difflib.get_close_matches(word, known, n=1)
    return f"there are {some(known, most) or 'none'}" + (f"; did you mean {close[0]}?" if close else "")


def plain(name: str) -> str:
    """A name without what people mean nothing by.

    >>> plain("Polar__Bear ")
    'polar bear'
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split())
