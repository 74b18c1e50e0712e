"""A penalty chosen without an image beside the sums: rows fall into folds by their own bytes, and each fold judges what the rest says."""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cl.methods.closed_form.moments import positive
from cl.methods.features import ClassRows

PENALTIES = tuple(10.0**power for power in range(-6, 3))
UNJUDGED = 0.1  # where fewer than two folds have a row


class Folds(nn.Module):
    """The sums of all folds but the last, which is what is left of the sums of all rows: also of rows that nobody put into a fold.

    `chosen` is the penalty that follows from them once a session is learned, since it takes seconds to find; 0: not found yet.
    """

    grams: Tensor
    chosen: Tensor

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count, self.width = count, width
        self.register_buffer("grams", torch.zeros(count - 1, width, width, dtype=torch.float64))
        self.register_buffer("chosen", torch.zeros((), dtype=torch.float64))
        self.sums = ClassRows((count - 1) * width)  # one fold behind the other

    def change(self, names: Sequence[str], lifted: Float[Tensor, "n m"], prints: Int[Tensor, " n"], sign: int) -> None:
        """Add rows, or take them out; `prints` say into which fold each falls, whatever session it came in."""
        self.chosen.zero_()
        place = prints.to(lifted.device) % self.count
        for fold in range(self.count - 1):
            rows = lifted[place == fold]
            self.grams[fold].add_(rows.T @ rows, alpha=sign)
        mask = torch.nn.functional.one_hot(place, self.count)[:, :-1].to(lifted)
        values = (mask[:, :, None] * lifted[:, None]).flatten(1)
        self.sums.add(names, sign * values)

    def sound(self, gram: Float[Tensor, "m m"], names: Collection[str]) -> bool:
        """Whether the folds can be parts of all rows, `names` the classes of those: of others that are gone nothing is known any more."""
        self.sums.leave_out(set(self.sums.names) - set(names))
        parts = [*self.grams.double(), gram - self.grams.double().sum(0)]
        return all(positive(part, float(gram.trace())) for part in parts)

    def clear(self) -> None:
        """Let all rows be of the last fold."""
        self.grams.zero_()
        self.sums.leave_out(self.sums.names)

    def penalty(self, gram: Float[Tensor, "m m"], names: Sequence[str], sums: Float[Tensor, "k m"]) -> float:
        """The penalty under which the rest's weights come closest to each fold's class indicators, the least of equals.

        Args:
            gram: of all rows.
            names: of the classes.
            sums: of all rows of each class.
        """
        by_fold = self.sums.find(names)[0].double().reshape(len(names), self.count - 1, self.width).transpose(0, 1)
        grams = torch.cat([self.grams.double(), (gram - self.grams.double().sum(0))[None]])
        apart = torch.cat([by_fold, (sums - by_fold.sum(0))[None]])
        there = [fold for fold in range(self.count) if float(grams[fold].trace()) > 1e-9 * float(gram.trace())]
        if len(there) < 2:
            return UNJUDGED
        errors = sum(fold_error(gram - grams[fold], sums - apart[fold], grams[fold], apart[fold], PENALTIES) for fold in there)
        assert isinstance(errors, Tensor)
        return PENALTIES[int(errors.argmin())]


def fold_error(
    rest: Float[Tensor, "m m"],
    rest_sums: Float[Tensor, "k m"],
    gram: Float[Tensor, "m m"],
    sums: Float[Tensor, "k m"],
    penalties: Sequence[float],
    rows: float = 0.0,
) -> Float[Tensor, " p"]:
    """The squared error on a fold of weights from the rest, for each penalty: rows - 2 tr(W^T C) + tr(W^T G W), from sums alone.

    The rest is turned onto its axes once, whereupon a penalty costs no more than a product with a vector.

    Args:
        rest: Gram matrix of the rest.
        rest_sums: by class, the sum of the rest's features.
        gram: of the fold.
        sums: of the fold.
        penalties: to be tried.
        rows: in the fold; they add the same to all.
    """
    values, axes = torch.linalg.eigh(rest)
    theirs, ours = rest_sums @ axes, sums @ axes
    linear = (theirs * ours).sum(0)
    square = (axes.T @ gram @ axes) * (theirs.T @ theirs)
    shrunk = [1 / (values.clamp(min=0) + penalty) for penalty in penalties]
    return torch.stack([rows - 2 * each @ linear + each @ square @ each for each in shrunk])
