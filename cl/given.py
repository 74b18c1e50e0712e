"""What callers in Python hand in, looked at before it is used: a text is a list too, of letters, and a folder a path that nobody made."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from cl.data.classes import ClassName
from cl.data.images import decode, upright_rgb
from cl.errors import ConfigError, DataError
from cl.names import visible
from cl.streams.stream import Session
from cl.text import plural, some

Picture = Image.Image | Path | str
PICTURE = (str, Path, Image.Image)
T = TypeVar("T")
_SINGLE = (*PICTURE, bytes)  # which Python would go through letter by letter, or not at all


def several(given: Iterable[T], kinds: type | tuple[type, ...], where: str, what: str) -> list[T]:
    """The members of what should be a list of these kinds, and not empty; `what` it should hold, in words.

    Raises:
        DataError: it is one thing and no list of it, is empty, or holds something else.

    >>> several("cat", str, "predict: labels", "class names")
    Traceback (most recent call last):
    ...
    cl.errors.DataError: predict: labels: found 'cat', expected class names; put it into a list, [...]
    """
    if isinstance(given, (kinds, _SINGLE)):
        raise DataError(f"{where}: found {shown(given)}, expected {what}; put it into a list, [...]")
    if not isinstance(given, Iterable):
        raise DataError(f"{where}: found {shown(given)}, expected {what}, in a list")
    items = list(given)
    if wrong := [each for each in items if not isinstance(each, kinds)]:
        raise DataError(f"{where}: found {shown(wrong[0])} in the list, expected {what}")
    if not items:
        raise DataError(f"{where}: found an empty list, expected {what}")
    return items


def choice(labels: Sequence[str], known: Sequence[str]) -> list[str]:
    """Labels to choose from, each once; `known`: the classes that the model has learned.

    Raises:
        DataError: they are fewer than two, or no list.
    """
    names = list(dict.fromkeys(several(labels, str, "predict: labels", "class names") if labels else ()))
    if len(names) < 2:
        learned = plural(len(known), "class", "classes")
        raise DataError(f"predict: found {plural(len(names), 'label')}, expected at least two that differ; the model has learned {learned}")
    return names


def mapping(given: Mapping[str, Any], where: str, what: str) -> dict[str, Any]:
    """Settings, of which nobody has seen yet whether they exist.

    Raises:
        ConfigError: they are no mapping.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: found {shown(given)}, expected {what}")
    return dict(given)


def stream_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a stream.

    Raises:
        ConfigError: they are no mapping.
    """
    such = '{"kind": "classes", "sources": {"pets": "pets"}, "increment": 5}'
    return mapping(given, "read_stream", f"settings such as {such}; a whole config is for learn_stream")


def following(session: Session, learned: int, known: tuple[ClassName, ...]) -> None:
    """Raise where a session is not the next of a model that has learned so many, and these classes.

    Raises:
        DataError: it is none, or another is next, or it moves or drops a class.
    """
    if not isinstance(session, Session):
        raise DataError(f"learn: found {shown(session)}, expected one of a stream's sessions, such as stream.sessions[0]")
    if session.index != learned + 1:
        raise DataError(
            f"session {session.name}: number {session.index} of its stream, and the model has learned {learned}, so that number "
            f"{learned + 1} is next; go in order, and begin another stream with another model"
        )
    if session.vocabulary[: len(known)] != known:
        raise DataError(f"session {session.name}: its classes do not begin with the {len(known)} that were learned; go in order")


def complete(rows: Sequence[Mapping[str, Any]], sets: Sequence[str]) -> None:
    """Raise where a row of scores is not one of these sets.

    Raises:
        DataError: it lacks one of them, or has another.
    """
    for place, row in enumerate(rows):
        if set(row) != set(sets):
            raise DataError(f"matrix: row {place} has scores of {some(list(row)) or 'no set'}, expected those of {some(list(sets))}")


def shown(given: Any) -> str:
    """A value in a sentence: texts, paths and numbers as they are, of anything else its kind.

    >>> shown(None), shown(3), shown(Path("a")), shown([1])
    ('None', '3', "'a'", 'a value of type list')
    """
    if isinstance(given, str | Path):
        return visible(repr(str(given)[:80]))
    return str(given) if given is None or isinstance(given, bool | int | float) else f"a value of type {type(given).__name__}"


def opened(picture: Picture) -> Image.Image:
    """A path's image, or an image as it is, upright and in RGB.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    try:
        return decode(Path(picture).read_bytes(), str(picture))
    except OSError as error:
        raise DataError(f"{picture}: cannot be read ({error.strerror}); give image files") from error
