"""What is doubtful though every sample can be used: classes that cannot be told apart, images under two labels or in two splits."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.data.told import Told, Topic
from cl.text import plain

_CONTEXT = 77  # tokens that CLIP reads; a model may read more or fewer, and `run` says it of its own


def doubts(splits: Mapping[str, ImageTable]) -> list[Told]:
    """What is to be told of rows by split.

    Names of one group stand together: "Cat = cat".
    """
    counts = Counter(label for rows in splits.values() for label in rows.labels if label is not None)
    taught = set(splits["train"].classes()) if "train" in splits else set()
    asked = {label: None for split, rows in splits.items() if split != "train" for label in rows.classes()}
    bare = [name for rows in splits.values() for name, label, texts in zip(rows.ids, rows.labels, rows.captions, strict=True)
            if label is None and not texts]  # fmt: skip
    unsaid = [name for rows in splits.values()
              for name, texts, *others in zip(rows.ids, rows.captions, rows.rewrites, rows.counterfactuals, strict=True)
              if any(others) and not texts]  # fmt: skip
    made = [
        Told(Topic.ALIKE, tuple(" = ".join(map(repr, group)) for group in alike(counts))),
        Told(Topic.SINGLE, tuple(sorted(label for label, count in counts.items() if count == 1))),
        Told(Topic.UNTAUGHT, tuple(label for label in asked if label not in taught)) if taught else Told(Topic.UNTAUGHT),
        Told(Topic.UNLABELLED, tuple(bare)) if len(bare) < sum(map(len, splits.values())) else Told(Topic.UNLABELLED),
        Told(Topic.UNSAID, tuple(unsaid)),
        *same_images({split: [rows] for split, rows in splits.items()}),
    ]
    return [each for each in made if each.names]


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case, separators, or the way letters are encoded.

    >>> alike(["Cat", "dog", "cat", "polar_bear", "polar-bear"])
    [('Cat', 'cat'), ('polar_bear', 'polar-bear')]
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[plain(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def same_prompts(classes: Sequence[ClassName]) -> list[tuple[str, ...]]:
    """Groups of classes whose prompts are the same to a model, which reads NFC, no case and one space: the first would always win.

    >>> same_prompts([ClassName("polar_bear", ("a polar bear",)), ClassName("Polar bear", ("a Polar bear",)), ClassName("cat", ("a cat",))])
    [('polar_bear', 'Polar bear')]
    """
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for each in classes:
        groups[tuple(" ".join(unicodedata.normalize("NFC", prompt).lower().split()) for prompt in each.prompts)].append(each.name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def same_images(splits: Mapping[str, Sequence[ImageTable]]) -> list[Told]:
    """Images, byte for byte, that stand under two labels, in training and test, or twice in the tables of one split."""
    labels: dict[bytes, dict[str, str]] = defaultdict(dict)
    taught: set[bytes] = set()
    seen: dict[tuple[str, bytes], str] = {}
    leaked, twice = [], []
    every = ((split, rows) for split, tables in splits.items() for rows in tables)
    for split, name, label, key in ((split, *row) for split, rows in every for row in zip(rows.ids, rows.labels, rows.prints, strict=True)):
        if label is not None:
            labels[key].setdefault(label, name)
        if (split, key) in seen:
            twice.append(f"{name} = {seen[split, key]}")
        elif split == "train":
            taught.add(key)
        elif key in taught:
            leaked.append(name)
        seen.setdefault((split, key), name)
    clash = [" = ".join(f"{name} ({label})" for label, name in known.items()) for known in labels.values() if len(known) > 1]
    return [Told(Topic.CONFLICT, tuple(clash)), Told(Topic.LEAK, tuple(leaked)), Told(Topic.SAME, tuple(twice))]


def cut(captions: Iterable[str], reader: Any = None, whose: str = "{} tokens that CLIP") -> list[Told]:
    """How many captions a model cuts: CLIP's, or the one whose tokenizer is given.

    Few have to be read for that, since no token is shorter than a byte, and two mark start and end.
    """
    context = _CONTEXT if reader is None else int(reader.context_length)
    long = list(dict.fromkeys(text for text in captions if len(text.encode("utf-8", "replace")) > context - 2))
    if not long:
        return []
    from cl.models.tokens import tokenizer  # brings torch: seconds

    reader = reader or tokenizer({}, None)
    pad = int(reader([""], context_length=context + 1)[0, -1])  # what stands where a text has ended
    count = int((reader(long, context_length=context + 1)[:, -1] != pad).sum())
    return [Told(Topic.CUT, (whose.format(context),), count)] if count else []


def left_out(train: ImageTable, test: ImageTable, used: Container[str]) -> tuple[Told, ...]:
    """What a stream by class does not take up, though it is there."""
    taught = train.classes()
    bare = [name for name, label in zip(train.ids, train.labels, strict=True) if label is None]
    made = (
        Told(Topic.LEFT_OUT, tuple(name for name in taught if name not in used)),
        Told(Topic.UNTAUGHT, tuple(name for name in test.classes() if name not in taught)),
        Told(Topic.NO_LABEL, tuple(bare)),
    )
    return tuple(each for each in made if each.names)
