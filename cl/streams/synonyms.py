"""What classes are asked as where their own name is rare: another name, given or counted in captions (REAL-Prompt, arXiv:2401.12425)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from cl.data.formats import read
from cl.disk.unchanged import stamp
from cl.errors import DataError
from cl.streams.config import StreamConfig
from cl.text import did_you_mean


def spoken(config: StreamConfig, root: Path) -> StreamConfig:
    """The same stream with one name for each class that has synonyms: of several, and its own, the one in most captions.

    Raises:
        DataError: there are no captions to count in.
    """
    if config.counted_in is None:
        return config
    path = root / Path(config.counted_in).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist; synonyms are counted in the captions there: stream.counted_in")
    counted = _chosen(path, tuple((name, *others) for name, others in config.synonyms.items()), stamp([path]).digest)
    return config.model_copy(update={"synonyms": {name: (best,) for name, best in counted.items()}, "counted_in": None})


@lru_cache(maxsize=4)  # an update reads its stream more than once
def _chosen(path: Path, groups: tuple[tuple[str, ...], ...], as_it_is: str) -> dict[str, str]:
    captions = [text for texts in read(path, check=False).captions for text in texts]
    if not captions:
        raise DataError(f"{path} has no caption to count synonyms in; name other data in stream.counted_in, or give each class one name")
    counts = occurrences(captions, {name for group in groups for name in group})
    return {group[0]: most_common(group, counts) for group in groups}


def most_common(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """The name in most captions; of equals the first.

    >>> most_common(["cobwebbed", "spider web like", "spider web"], {"cobwebbed": 26, "spider web like": 15, "spider web": 17750})
    'spider web'
    """
    return max(names, key=lambda name: counts.get(name, 0))


def occurrences(captions: Iterable[str], names: Iterable[str]) -> dict[str, int]:
    """In how many captions each name stands, as whole words, whatever the case; `_` in a name is read as a space.

    >>> occurrences(["A spider web.", "spider webs", "the SPIDER  WEB of a spider"], ["spider_web", "spider"])
    {'spider_web': 2, 'spider': 3}
    """
    wanted = {name: re.compile(rf"(?<!\w){re.escape(_plain(name.replace('_', ' ')))}(?!\w)") for name in names}
    counts = dict.fromkeys(wanted, 0)
    for caption in map(_plain, captions):
        for name, pattern in wanted.items():
            counts[name] += pattern.search(caption) is not None
    return counts


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def unmet(config: StreamConfig, classes: Sequence[str]) -> None:
    """Raise where synonyms are given for a class that a whole stream does not have.

    Raises:
        DataError: names the class.
    """
    odd = [name for name in config.synonyms if name not in classes]
    if odd and config.kind != "collection":  # which classes come in yet nobody knows
        raise DataError(f"stream.synonyms: there is no class {odd[0]!r}; {did_you_mean(odd[0], list(classes))}")
