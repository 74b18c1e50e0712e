"""What is said of a source as a whole, as a value: nothing was lost by it, and who reads in the data should know it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cl.text import some


class Topic(StrEnum):
    """What a remark is about; the value is its sentence, in which {names} and {count} stand."""

    LAYOUT = "read as {names}"
    COLUMNS = "columns: {names}"
    UNUSED = "columns not used: {names}"
    UNREAD = "not read: {names}"
    UNNAMED = "images that nothing names, left out ({count}): {names}"
    ENCODING = "not UTF-8, and read as what it is: {names}"
    BLANK = "cells that say NaN, None or null, taken for empty ({count}): {names}"
    CUT = "captions longer than the {names} can read, which are cut: {count}"
    REPEATED = "rows that say what another says, left out ({count}): {names}"
    LINKED = "images that are links out of the folder ({count}): {names}"
    UNSAID = "rewrites or wrong captions of images without a caption, which nothing uses ({count}): {names}"
    UNLABELLED = "images with neither a label nor a caption ({count}): {names}"
    ALIKE = "classes that differ only in case, separators or the way letters are encoded ({count}): {names}"
    SAME_PROMPT = "classes with the same prompt, which no model can tell apart ({count}): {names}"
    TWICE = "names that stand twice in the list of classes, and are one class each ({count}): {names}"
    SINGLE = "classes of a single image ({count}): {names}"
    CONFLICT = "images under two labels ({count}): {names}"
    SAME = "images that are there twice ({count}): {names}"
    LEAK = "test images that are training images too ({count}): {names}"
    HELD_OUT = "nothing says which images are for testing: {names} are held out"
    NO_LABEL = "training images without a label, left out ({count}): {names}"
    LEFT_OUT = "classes with training images that are in no session ({count}): {names}"
    UNTAUGHT = "classes with test images and no training image ({count}): {names}"


@dataclass(frozen=True)
class Told:
    """One remark: what it is about, the names concerned, and how many there are where that is more than names."""

    topic: Topic
    names: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        count = f"{self.count or len(self.names):,}"
        return self.topic.value.replace("{count}", count).replace("{names}", some(self.names, 12 if self.topic in _ALL else 3))


def unused(remarks: Iterable[Told]) -> str:
    """The columns that have no role, as the end of a sentence about what is missing: one of them may be misspelt.

    >>> unused([Told(Topic.UNUSED, ("lable", "size"))]), unused([])
    ('; its columns lable, size are not used', '')
    """
    names = [name for each in remarks if each.topic == Topic.UNUSED for name in each.names]
    return f"; its columns {some(names, 12)} are not used" if names else ""


_ALL = (Topic.LAYOUT, Topic.COLUMNS, Topic.UNUSED)


def merged(remarks: Iterable[Told]) -> list[Told]:
    """One remark per topic, in order of first appearance.

    >>> merged([Told(Topic.UNREAD, ("a",)), Told(Topic.UNREAD, ("b", "a"))])
    [Told(topic=<Topic.UNREAD: 'not read: {names}'>, names=('a', 'b'), count=0)]
    """
    known: dict[Topic, Told] = {}
    for each in remarks:
        before = known.get(each.topic, Told(each.topic))
        known[each.topic] = Told(each.topic, tuple(dict.fromkeys((*before.names, *each.names))), before.count + each.count)
    return list(known.values())
