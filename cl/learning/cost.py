"""What learning a session costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a session took: trainable parameters, bytes kept after it, seconds, optimizer steps, samples seen, FLOPs.

    FLOPs are those of matrix products and convolutions, forward and backward, teachers included: of the first step, times the steps,
    and of what comes before and after them, such as features that are computed once.
    """

    trainable: int
    stored_bytes: int
    seconds: float
    steps: int
    samples: int
    flops: int
