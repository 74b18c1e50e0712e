"""What a closed-form head would be had it never seen some rows: its sums are sums over rows, so theirs are taken away.

Exact but for rounding: the sums are those of learning without the rows to about 2e-14, the answers at the default penalty to 3e-13.
At a penalty of 1e-6 the answers differ by 5e-8, for then the solution hangs on the last digits of the sums.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods import Method
from cl.methods.features import ClassRows, encoded
from cl.methods.gda import GDA
from cl.methods.ridge import Ridge

CLOSED = ("ridge", "gda")  # methods, by name, whose memory is a sum over rows
_NOTHING = 1e-9  # of a class's sum before: what is left where no row is left; a single row leaves at least its share


def subtract(method: Method, rows: ImageTable, gone: Sequence[int]) -> None:
    """Take some rows of a session out of a head.

    Args:
        method: as it was at some time after the session.
        rows: the session's labelled rows, all of them in their order, so that the encoder sees the batches that it saw.
        gone: which of them.

    Raises:
        MethodError: its memory is no sum over rows.
    """
    features = encoded(method.encode_image, method.clip, rows)[list(gone)]
    labels = [str(rows.labels[row]) for row in gone]
    if isinstance(method, Ridge):
        for start in range(0, len(labels), 1024):
            lifted = method.lift(features[start : start + 1024])
            method.gram -= lifted.T @ lifted
            _take(method.sums, labels[start : start + 1024], lifted)
    elif isinstance(method, GDA):
        own = features.double()
        method.moment -= own.T @ own
        _take(method.sums, labels, torch.cat([own, torch.ones_like(own[:, :1])], 1))
    else:
        raise MethodError(f"{type(method).__name__}: its memory is no sum over rows, so nothing can be taken out of it")


def _take(sums: ClassRows, labels: Sequence[str], values: Tensor) -> None:
    """Subtract from the rows of classes; one of which nothing is left is unknown again."""
    before = dict(zip(sums.names, sums.rows.detach().norm(dim=1).tolist(), strict=True))
    sums.add(labels, -values)
    after = sums.rows.detach().norm(dim=1).tolist()
    stay = [place for place, name in enumerate(sums.names) if name not in labels or after[place] > _NOTHING * max(before[name], 1.0)]
    if len(stay) < len(sums.names):
        sums.rows = torch.nn.Parameter(sums.rows.detach()[stay], requires_grad=sums.rows.requires_grad)
        sums.names = [sums.names[place] for place in stay]
