"""What stands beside a row of a batch where a method asks for it: another image of the same one, or another text."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.data.wording import another_number, exchanged
from cl.methods.base import What
from cl.seeds import derive

Make = Callable[[int, int, str], Tensor | str | None]  # of a row, an epoch, and the caption that was drawn for it


class Source(Protocol):
    """The rows that it is made from."""

    data: ImageTable
    vocabulary: Sequence[ClassName]
    seed: int

    def pixels_of(self, row: int, epoch: int) -> Tensor:
        """The image of a row as an epoch shows it."""

    def cropped(self, row: int, epoch: int) -> Tensor:
        """A random crop of it that no step shows by itself."""


def makers(source: Source, asked: Sequence[What]) -> list[Make]:
    """What makes each of the things that are asked for; where a row has no such thing, None."""
    return [_maker(source, what) for what in asked]


def _maker(source: Source, what: What) -> Make:
    data = source.data
    match what:
        case "partner:label":
            return partial(_partner, source, data.ids, _groups(data.labels))
        case "partner:identity":
            return partial(_partner, source, data.ids, _groups(data.identities))
        case "wrong:column":
            return partial(_listed, source.seed, data.counterfactuals)
        case "wrong:numbers":
            return partial(_altered, source.seed, another_number)
        case "wrong:words":
            return partial(_altered, source.seed, exchanged)
        case "second:caption":
            return partial(_other, source.seed, data.captions)
        case "second:rewrite":
            return partial(_other, source.seed, data.rewrites)
        case "second:label":
            prompts = {known.name: known.prompts[0] for known in source.vocabulary}
            return partial(_prompt, [prompts[label] if label is not None else None for label in data.labels])


def _groups(names: Sequence[str | None]) -> list[list[int]]:
    """For each row, the rows that share its name, itself among them; none where it has no name."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            members.setdefault(name, []).append(row)
    return [members[name] if name is not None else [] for name in names]


def _partner(source: Source, ids: Sequence[str], groups: Sequence[Sequence[int]], row: int, epoch: int, text: str) -> Tensor | None:
    if not groups[row]:
        return None
    others = [each for each in groups[row] if ids[each] != ids[row]]  # a memory may bring a sample twice
    if not others:
        return source.cropped(row, epoch)
    return source.pixels_of(others[derive(source.seed, "partner", row, epoch) % len(others)], epoch)


def _listed(seed: int, texts: Sequence[Sequence[str]], row: int, epoch: int, text: str) -> str | None:
    return texts[row][derive(seed, "wrong", row, epoch) % len(texts[row])] if text and texts[row] else None


def _altered(seed: int, change: Callable[[str, int], str | None], row: int, epoch: int, text: str) -> str | None:
    return change(text, derive(seed, "wrong", row, epoch))


def _other(seed: int, texts: Sequence[Sequence[str]], row: int, epoch: int, text: str) -> str | None:
    others = [each for each in texts[row] if each != text]
    return others[derive(seed, "second", row, epoch) % len(others)] if text and others else None


def _prompt(prompts: Sequence[str | None], row: int, epoch: int, text: str) -> str | None:
    return prompts[row] if text else None
