"""What a closed-form head would be had it never seen some rows: its sums are sums over rows, so theirs are taken away; its keys are
features of rows, so theirs are deleted.

Exact but for rounding: the sums are those of learning without the rows to about 2e-14, the answers at the default penalty to 3e-13.
At a penalty of 1e-6 the answers differ by 5e-8, for then the solution hangs on the last digits of the sums.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods import AnyMethodConfig, Method
from cl.methods.closed_form import Sums, SumsConfig, Tip, TipConfig
from cl.methods.closed_form.tip import TrainedTip


def forgets(settings: Mapping[str, Any]) -> str | None:
    """Why a method can take rows out of what it learned, by its settings; None where it cannot."""
    try:
        config = TypeAdapter(AnyMethodConfig).validate_python(dict(settings))
    except ValidationError:  # of a release that had other methods
        return None
    if isinstance(config, SumsConfig) and getattr(config, "unlabelled", "leave_out") == "leave_out":
        return f"{config.called()} is a sum over images, and theirs are taken away"
    if isinstance(config, TipConfig) and config.keys == "kept":
        return f"{config.called()} keeps a feature of each image, and theirs are deleted"
    return None


def renote(method: Method, before: Method | None, rows: ImageTable, vocabulary: Sequence[ClassName]) -> None:
    """Let a head of sums have noted of a session's rows what it would have without those that were taken out; others note nothing.

    Args:
        method: as it is after the session, without them.
        before: as it was before the session, without them; None: it had learned nothing.
        rows: the session's labelled rows that stay.
        vocabulary: the classes known once the session was over.
    """
    if not isinstance(method, Sums):
        return
    method.notes.keep(torch.arange(0))
    if isinstance(before, Sums):
        method.notes.load_state_dict(before.notes.state_dict())
    method.note(method.read(rows), vocabulary)


def subtract(method: Method, rows: ImageTable, gone: Sequence[int]) -> None:
    """Take some rows of a session out of a head.

    Args:
        method: as it was at some time after the session.
        rows: the session's labelled rows, all of them in their order, so that the encoder sees the batches that it saw.
        gone: which of them.

    Raises:
        MethodError: its memory is no sum over rows, and holds them in no other way that they come out of again.
    """
    if isinstance(method, Tip) and not isinstance(method, TrainedTip):
        method.delete(rows.take(list(gone)))
        return
    if not isinstance(method, Sums):
        raise MethodError(f"{type(method).__name__}: its memory is no sum over rows, so nothing can be taken out of it")
    method.subtract(method.read(rows).take(list(gone)))
