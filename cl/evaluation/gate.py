"""Whether a candidate may take the champion's place: bounds on what it scores, forgets, breaks and costs, checked on the same samples."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool
from pydantic import Field, NonNegativeFloat, PositiveFloat

from cl.config import Config
from cl.evaluation.matrix import bootstrap
from cl.text import some

Share = float | None
_CLEARLY = 0.05  # of a score


class GateConfig(Config):
    """Bounds, scores as shares in 0..1; None: not asked. Those against the champion hold where there is one."""

    drop: Share = Field(0.05, ge=0, le=1, description="what any set may lose against the champion, by the lower end of the 95 % interval")
    flips: Share = Field(0.1, ge=0, le=1, description="share of samples that the champion had right and the candidate has wrong")
    forgetting: Share = Field(None, ge=0, le=1, description="of the candidate's own matrix")
    zero_shot_drop: Share = Field(None, ge=-1, le=1, description="loss on probes since the start")
    scores: dict[str, float] = Field({}, description="least headline score (top-1, R@10) by set, such as {greek: 0.6}")
    worst_class: Share = Field(None, ge=0, le=1, description="least top-1 of any class of any set")
    calibration: Share = Field(None, ge=0, le=1, description="most expected calibration error of any set that classifies")
    seconds: NonNegativeFloat | None = Field(None, description="of learning, all sessions together")
    stored_mb: NonNegativeFloat | None = Field(None, description="kept between sessions")
    approval: bool = Field(False, description="a person decides, once every bound holds")
    approval_hours: PositiveFloat = Field(24.0, description="how long to wait for that")


@dataclass(frozen=True)
class Judged:
    """A model as the gate sees it: numbers about the whole, and by set its metrics and which samples it gets right.

    `sets` and `classes`: of a candidate those that it is asked about, of a champion those that it was made champion with.
    """

    summary: Mapping[str, float]  # forgetting, zero_shot_drop, seconds, stored_mb
    headline: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]
    hits: Mapping[str, Bool[np.ndarray, " n"]]
    sets: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    worst: Mapping[str, str] = field(default_factory=dict)  # by set, the class that it gets right most seldom
    start: Mapping[str, float] = field(default_factory=dict)  # the headline scores of the model before any session
    called: str = "the champion"  # who a candidate is held against: it may be a model that was accepted and has no version yet


@dataclass(frozen=True)
class Check:
    """One bound: what was found, in which interval, against what limit; `holds` is False for anything that is not a number."""

    bound: str
    candidate: float
    champion: float
    low: float
    high: float
    limit: float
    holds: bool
    by_low: bool = False  # whether the lower end of the interval has to hold, not only what was found
    images: int = 0  # that the interval is of


@dataclass(frozen=True)
class Decision:
    """Promote or not, each bound that was checked, and why in one line."""

    promote: bool
    checks: tuple[Check, ...]
    reason: str


def decide(candidate: Judged, champion: Judged | str | None, bounds: GateConfig) -> Decision:
    """Promote only if every bound holds. `champion` is None where there is none yet, or says why it cannot be read: that refuses.

    >>> fine = Judged({}, {"a": 0.5}, {"a": {}}, {"a": np.array([True, False])})
    >>> decide(fine, fine, GateConfig()).promote, decide(fine, "its file is gone", GateConfig()).reason
    (True, 'the champion cannot be read: its file is gone')
    """
    checks = tuple(_alone(candidate, bounds))
    if isinstance(champion, str):
        return Decision(False, checks, f"the champion cannot be read: {champion}")
    if champion:
        if unasked := _unasked(candidate, champion):
            return Decision(False, checks, f"it was not asked about {unasked}, which {champion.called} knows")
        other = sorted(name for name in candidate.hits if len(champion.hits.get(name, ())) != len(candidate.hits[name]))
        if other:
            return Decision(False, checks, f"{champion.called} was not scored on the same samples of {', '.join(other)}")
        checks += tuple(_against(candidate, champion, bounds))
    broken = [check for check in checks if not check.holds]
    if broken:
        return Decision(False, checks, "; ".join(_told(check) for check in broken))
    if champion:
        return Decision(True, checks, f"every bound holds, with {champion.called} asked the same")
    return Decision(True, checks, f"every bound that needs no champion holds{_lost(candidate)}")


def _lost(first: Judged) -> str:
    """Where a first champion, which is held against nothing, is clearly worse than the model that it began as.

    >>> _lost(Judged({}, {"cats": 0.9, "zebras": 0.2}, {}, {}, start={"cats": 0.5, "zebras": 0.8}))
    '; the model before any session was better on zebras (0.800, now 0.200): `drop` bounds that from the next version on only'
    """
    lost = {name: first.start.get(name, math.nan) - value for name, value in first.headline.items()}
    worse = [
        f"{name} ({first.start[name]:.3f}, now {first.headline[name]:.3f})"
        for name in sorted(lost, key=lambda name: -lost[name])
        if lost[name] > _CLEARLY
    ]
    return f"; the model before any session was better on {some(worse)}: `drop` bounds that from the next version on only" if worse else ""


def _unasked(candidate: Judged, champion: Judged) -> str:
    # what nobody asks a candidate about it may have forgotten unseen
    missing = {"set": sorted(champion.sets - candidate.sets), "class": sorted(champion.classes - candidate.classes)}
    return " and ".join(f"{kind} {some([repr(name) for name in names])}" for kind, names in missing.items() if names)


def _alone(candidate: Judged, bounds: GateConfig) -> Iterator[Check]:
    nan = math.nan
    for name, value in candidate.headline.items():  # a model that could not be scored is no candidate, whatever is asked
        yield _check(f"score of {name}", value, nan, bounds.scores.get(name, 0.0), value >= bounds.scores.get(name, 0.0))
    for name in bounds.scores.keys() - candidate.headline.keys():
        yield _check(f"score of {name}", nan, nan, bounds.scores[name], False)
    for name in ("forgetting", "zero_shot_drop", "seconds", "stored_mb"):
        limit = getattr(bounds, name)
        if limit is not None:
            value = candidate.summary.get(name, nan)
            yield _check(name.replace("_", " "), value, nan, limit, value <= limit)
    classified = {name: own for name, own in candidate.metrics.items() if "top1" in own}
    if bounds.worst_class is not None:
        where, value = _worst({name: own.get("worst_class", nan) for name, own in classified.items()})
        named = ", ".join(word for word in (candidate.worst.get(where, ""), where) if word)
        yield _check(f"worst class ({named})" if named else "worst class", value, nan, bounds.worst_class, value >= bounds.worst_class)
    if bounds.calibration is not None:
        where, value = _worst({name: -own.get("ece", nan) for name, own in classified.items()})
        named = f"calibration error of {where}" if where else "calibration error"
        yield _check(named, -value, nan, bounds.calibration, -value <= bounds.calibration)


def _worst(values: Mapping[str, float]) -> tuple[str, float]:
    """The set with the least value, which is what is not a number where there is such; none has no name."""
    return min(values.items(), key=lambda item: -math.inf if math.isnan(item[1]) else item[1], default=("", math.nan))


def _against(candidate: Judged, champion: Judged, bounds: GateConfig) -> Iterator[Check]:
    if bounds.drop is not None:
        for name, hits in candidate.hits.items():
            mean, low, high = bootstrap([hits], [champion.hits[name]])
            before = float(champion.hits[name].mean())
            holds, bound = low >= -bounds.drop, f"{name} against {champion.called}"
            yield Check(bound, before + mean, before, low, high, -bounds.drop, holds, by_low=True, images=len(hits))
    if bounds.flips is not None:
        wrong = [champion.hits[name] & ~hits for name, hits in candidate.hits.items()]
        value, low, high = bootstrap(wrong, [np.zeros_like(flips) for flips in wrong])
        yield Check("negative flips", value, 0.0, low, high, bounds.flips, value <= bounds.flips)


def _check(bound: str, value: float, champion: float, limit: float, holds: bool) -> Check:
    return Check(bound, value, champion, math.nan, math.nan, limit, bool(holds) and not math.isnan(value))


def _told(check: Check) -> str:
    """A broken bound in words.

    >>> _told(_check("forgetting", 0.5, math.nan, 0.2, False))
    'forgetting is 0.500, the bound 0.200'
    """
    if math.isnan(check.low):
        return f"{check.bound} is {check.candidate:.3f}, the bound {check.limit:.3f}"
    difference = check.candidate - check.champion
    told = f"{check.bound}: {difference:+.3f} [{check.low:+.3f}, {check.high:+.3f}], the bound {check.limit:+.3f}"
    return told + (f" ({_too_few(check, difference)})" if check.by_low and difference >= check.limit else "")


def _too_few(check: Check, difference: float) -> str:
    """How many images it would take: an interval narrows with the root of their number.

    >>> _too_few(Check("a against the champion", 0.75, 0.75, -0.25, 0.25, -0.05, False, True, 8), 0.0)
    'too few test images to tell: 8, and it would take about 200'
    """
    room = difference - check.limit
    enough = f", and it would take about {float(f'{check.images * ((difference - check.low) / room) ** 2:.1g}'):,.0f}" if room > 0 else ""
    return f"too few test images to tell: {check.images}{enough}"
