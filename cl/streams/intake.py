"""A folder or file that becomes a data set: read strictly, every image looked at, and what is doubtful about it told."""

from collections.abc import Callable, Mapping
from pathlib import Path

from cl.data.faults import Reason
from cl.data.formats import look
from cl.data.screen import sound, teaches
from cl.data.table import ImageTable, hold_out
from cl.data.told import Told, Topic, unused
from cl.errors import DataError
from cl.streams.doubts import cut, doubts


def take(
    path: Path,
    columns: Mapping[str, str | None],
    share: float = 0.2,
    unlabelled: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, ImageTable], list[Told]]:
    """A data set as it is found, whole or not at all, and what is to be told of it.

    Args:
        path: a folder or file, see `formats.look`.
        columns: which column plays a role.
        share: of each class, what is held out as test where nothing says which images are for testing.
        unlabelled: whether images may be taken of which none has a label or a caption.
        tell: hears how many images are looked at, of how many.

    Raises:
        DataError: a sample cannot be used, or there is nothing to learn from.
    """
    looked = look(path, columns)
    sound(looked.splits, looked.problems, tell)
    splits = dict(looked.strictly())
    if not unlabelled:
        try:
            teaches(splits, "that they are to be taken all the same: --unlabelled")
        except DataError as error:
            raise DataError(f"{path}: {error}{unused(looked.told)}") from error
    again = [problem.where for problem in looked.problems if problem.reason == Reason.DUPLICATE]
    told = [*looked.told, *([Told(Topic.REPEATED, tuple(again))] if again else []), *doubts(splits)]
    told += cut(text for rows in splits.values() for texts in rows.captions for text in texts)
    if not {"val", "test"} & splits.keys() and share:
        splits["train"], splits["test"] = hold_out(splits["train"], share)
        whose = "each class" if any(rows.classes() for rows in splits.values()) else "the images"
        told.append(Told(Topic.HELD_OUT, (f"{share:.0%} of {whose}",)))
    return splits, told
