"""What is said of a source as a whole, as a value: nothing was lost by it, and who reads in the data should know it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    """What a remark is about; the value is its sentence, in which {names} and {count} stand."""

    LAYOUT = "read as {names}"
    COLUMNS = "columns: {names}"
    UNUSED = "columns not used: {names}"
    UNREAD = "not read: {names}"
    UNNAMED = "{count} images are named nowhere in what was read, and left out: {names}"
    ENCODING = "not UTF-8, and read as what it is: {names}"
    BLANK = "{count} cells say nothing and are taken for empty: {names}"
    CUT = "{count} captions are longer than the {names} can read, and are cut"
    REPEATED = "{count} rows say what another says, and were left out: {names}"
    LINKED = "{count} images are links that lead out of the folder: {names}"
    UNLABELLED = "{count} images have neither a label nor a caption: {names}"
    ALIKE = "{count} classes differ from another only in case, separators or the way letters are encoded: {names}"
    SAME_PROMPT = "{count} classes have the same prompt as another, so that no model can tell them apart: {names}"
    TWICE = "{count} class names stand twice in the list, and are one class each: {names}"
    SINGLE = "{count} classes hold a single image: {names}"
    CONFLICT = "{count} images stand under two labels: {names}"
    SAME = "{count} images stand there twice: {names}"
    LEAK = "{count} test images are training images too: {names}"
    HELD_OUT = "nothing says which images are for testing: {names} of each class are held out"
    NO_LABEL = "{count} training images have no label, and are left out: {names}"
    LEFT_OUT = "{count} classes with training images are in no session: {names}"
    UNTAUGHT = "{count} classes have test images and no training image, and are left out: {names}"


@dataclass(frozen=True)
class Told:
    """One remark: what it is about, the names concerned, and how many there are where that is more than names."""

    topic: Topic
    names: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        count = f"{self.count or len(self.names):,}"
        return self.topic.value.replace("{count}", count).replace("{names}", some(self.names, 12 if self.topic in _ALL else 3))


_ALL = (Topic.LAYOUT, Topic.COLUMNS, Topic.UNUSED)


def some(words: Sequence[object], most: int = 3) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(str(w) for w in words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


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
