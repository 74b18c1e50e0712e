"""What a closed-form head would be had it never seen some rows: its sums are sums over rows, so theirs are taken away.

Exact but for rounding: the sums are those of learning without the rows to about 2e-14, the answers at the default penalty to 3e-13.
At a penalty of 1e-6 the answers differ by 5e-8, for then the solution hangs on the last digits of the sums.
"""

from collections.abc import Sequence

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods import CONFIGS, Method
from cl.methods.closed_form import Sums, SumsConfig

CLOSED = tuple(name for name, config in CONFIGS.items() if issubclass(config, SumsConfig))  # methods whose memory is a sum over rows


def subtract(method: Method, rows: ImageTable, gone: Sequence[int]) -> None:
    """Take some rows of a session out of a head.

    Args:
        method: as it was at some time after the session.
        rows: the session's labelled rows, all of them in their order, so that the encoder sees the batches that it saw.
        gone: which of them.

    Raises:
        MethodError: its memory is no sum over rows.
    """
    if not isinstance(method, Sums):
        raise MethodError(f"{type(method).__name__}: its memory is no sum over rows, so nothing can be taken out of it")
    method.subtract(method.read(rows).take(list(gone)))
