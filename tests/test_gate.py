"""The gate: better promotes; worse, missing, NaN and unreadable refuse; and every number is what NumPy says it is."""

import math

import numpy as np
import pytest

from cl.evaluation.evaluate import calibration_error, worst_class
from cl.evaluation.gate import Check, Decision, GateConfig, Judged, decide

RANDOM = np.random.default_rng(0)
RIGHT = RANDOM.random(400) < 0.7


def judged(answers: np.ndarray = RIGHT, **changed: object) -> Judged:
    values: dict[str, object] = {
        "summary": {"forgetting": 0.1, "zero_shot_drop": 0.05, "seconds": 10.0, "stored_mb": 20.0},
        "headline": {"greek": float(answers.mean())},
        "metrics": {"greek": {"top1": float(answers.mean()), "worst_class": 0.3, "ece": 0.08}},
        "hits": {"greek": answers},
        "worst": {"greek": "alpha"},
    }
    return Judged(**{**values, **changed})  # type: ignore[arg-type]


def flipped(count: int) -> np.ndarray:
    """The same answers but for `count` right ones that are wrong now."""
    hits = RIGHT.copy()
    hits[np.flatnonzero(hits)[:count]] = False
    return hits


def broken(decision: Decision) -> list[str]:
    return [check.bound for check in decision.checks if not check.holds]


SETS, OPEN = frozenset({"greek"}), {"drop": None, "flips": None}
BETTER = np.where(RIGHT, True, RANDOM.random(400) < 0.3)


MORE = judged(sets=SETS | {"july"}, classes=SETS | {"omega"})


@pytest.mark.parametrize(
    ("candidate", "champion"),
    [(judged(BETTER), judged()), (judged(), judged()), (judged(flipped(4)), judged()), (judged(), None), (MORE, judged(sets=SETS))],
)
def test_as_good_as_the_champion_is_promoted(candidate: Judged, champion: Judged | None) -> None:
    decision = decide(candidate, champion, GateConfig())
    assert decision.promote and not broken(decision)


@pytest.mark.parametrize(
    ("candidate", "champion", "bounds", "told"),
    [
        (judged(flipped(40)), judged(), {}, "greek against the champion: -0.100"),
        (judged(flipped(16)), judged(), {}, "the bound -0.050 (too few test images to tell: 400, and it would take about 2,000)"),
        (judged(flipped(40)), judged(called="the model after april"), {}, "greek against the model after april: -0.100"),
        (judged(), judged(hits={}, called="the model after april"), {}, "the model after april was not scored on the same samples"),
        (judged(flipped(60)), judged(), {"drop": None}, "negative flips: +0.150"),
        (judged(headline={"greek": math.nan}), None, {}, "score of greek is nan"),
        (judged(), judged(hits={"greek": RIGHT[:300]}), {}, "not scored on the same samples of greek"),
        (judged(), judged(hits={}), {}, "not scored on the same samples of greek"),
        (judged(sets=SETS), judged(sets=SETS | {"july"}), OPEN, "it was not asked about set 'july', which the champion knows"),
        (judged(sets=SETS), judged(sets=SETS, classes=SETS), OPEN, "it was not asked about class 'greek', which"),
        (judged(), judged(sets=SETS, classes=SETS), OPEN, "about set 'greek' and class 'greek', which"),
        (judged(), "state.safetensors is damaged", {}, "the champion cannot be read: state.safetensors is damaged"),
        (judged(), None, {"forgetting": 0.05}, "forgetting is 0.100, the bound 0.050"),
        (judged(summary={}), None, {"forgetting": 0.5}, "forgetting is nan"),
        (judged(summary={"forgetting": math.nan}), None, {"forgetting": 0.5}, "forgetting is nan"),
        (judged(), None, {"zero_shot_drop": 0.01}, "zero shot drop is 0.050"),
        (judged(), None, {"scores": {"greek": 0.9}}, "score of greek"),
        (judged(), None, {"scores": {"arrows": 0.1}}, "score of arrows is nan"),
        (judged(), None, {"worst_class": 0.4}, "worst class (alpha, greek) is 0.300"),
        (judged(metrics={"greek": {"top1": 0.7}}), None, {"worst_class": 0.1}, "worst class (alpha, greek) is nan"),
        (judged(metrics={}), None, {"calibration": 0.1}, "calibration error is nan"),
        (judged(), None, {"calibration": 0.05}, "calibration error of greek is 0.080"),
        (judged(), None, {"seconds": 5.0}, "seconds is 10.000"),
        (judged(), None, {"stored_mb": 5.0}, "stored mb is 20.000"),
    ],
)
def test_worse_missing_nan_and_unreadable_refuse_and_say_why(
    candidate: Judged, champion: Judged | str | None, bounds: dict[str, object], told: str
) -> None:
    decision = decide(candidate, champion, GateConfig(**bounds))  # type: ignore[arg-type]
    assert not decision.promote and told in decision.reason


def test_a_difference_comes_with_the_interval_of_a_paired_bootstrap() -> None:
    (check,) = (each for each in decide(judged(flipped(12)), judged(), GateConfig()).checks if each.bound == "greek against the champion")
    assert isinstance(check, Check) and check.candidate - check.champion == pytest.approx(-0.03)
    spread = 1.96 * math.sqrt(0.03 * 0.97 / 400)  # of a difference that is 0 or -1
    assert check.low == pytest.approx(-0.03 - spread, abs=0.004) and check.high == pytest.approx(-0.03 + spread, abs=0.004)


def test_calibration_error_and_worst_class_are_what_they_are_defined_to_be() -> None:
    logits, targets = RANDOM.normal(size=(500, 7)) * 2, RANDOM.integers(0, 7, 500)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sure, right = shares.max(1), shares.argmax(1) == targets
    expected = 0.0
    for low in np.arange(15) / 15:
        mine = (sure > low) & (sure <= low + 1 / 15)
        expected += abs(sure[mine].sum() - right[mine].sum()) / 500
    assert calibration_error(logits, targets) == pytest.approx(expected, abs=1e-6)  # torchmetrics bins in single precision
    assert worst_class(right, targets) == min(right[targets == label].mean() for label in range(7))


def test_a_first_champion_that_is_worse_than_what_it_began_as_is_told() -> None:
    candidate = judged(start={"greek": float(RIGHT.mean()) + 0.2})
    told = decide(candidate, None, GateConfig(**OPEN))
    assert told.promote and "the model before any session was better on greek (" in told.reason
    assert "better" not in decide(judged(start={"greek": float(RIGHT.mean()) + 0.01}), None, GateConfig(**OPEN)).reason
    assert "better" not in decide(candidate, judged(), GateConfig(**OPEN)).reason  # which is held against a champion
