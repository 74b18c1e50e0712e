"""Which rows of a session teach, and what is told where none does."""

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.terms.base import Rows
from cl.streams.stream import Session


def teaching(session: Session, rows: Rows) -> ImageTable:
    """The rows of a session that teach."""
    data = session.data
    labelled, captioned = rows in ("labelled", "supervised"), rows in ("captioned", "supervised")
    pairs = zip(data.labels, data.captions, strict=True)
    return (
        data if rows == "any" else data.where([(labelled and label is not None) or (captioned and bool(texts)) for label, texts in pairs])
    )


def labelled(session: Session) -> ImageTable:
    """The labelled rows of a session, of which there has to be one.

    Raises:
        MethodError: none of its rows has a label.
    """
    rows = teaching(session, "labelled")
    if not len(rows):
        raise MethodError(lacking(session, "labelled"))
    return rows


def lacking(session: Session, rows: Rows) -> str:
    """That a session has no row that teaches, and what to do."""
    whose, count = f"session {session.index} ({session.name})", len(session.data)
    if rows == "labelled":
        return (
            f"{whose}: none of its {count} rows has a label, and this method learns from labels alone; give it labels, or choose a method "
            "for captions or unlabelled images"
        )
    if rows == "captioned":
        return f"{whose}: none of its {count} rows has a caption, and this method learns from captions alone; give it captions"
    return (
        f"{whose}: none of its {count} rows has a label or a caption to learn from; give it supervision: labels or captions, or choose a "
        "method for unlabelled images"
    )
