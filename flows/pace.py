"""How fast a stream is learned and when it will be over, by what is heard of it; whoever asks brings the time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from cl.text import plural

if TYPE_CHECKING:
    from cl.evaluation.matrix import Change

MINUTE = 60.0  # seconds after which something is said where nothing was
_STALE = 120.0  # seconds without a word, after which no time left is told


class Beat(NamedTuple):
    """Where a stream is: which session, what is done there, and how long it will take.

    `done` of `total`: steps of this round, or sets that are examined. `turns`: how many rounds; None where nobody knows. `rate`: images a
    second. `left`: seconds of what it does now (this round, these sets); `all_left`: of all sessions, an estimate from those that this
    process learned. Both None until something is known. `heard`: Unix time.
    """

    stream: str
    number: int
    last: int
    session: str
    doing: Literal["beginning", "learning", "examining"] = "beginning"
    done: int = 0
    total: int = 0
    turn: int = 0
    turns: int | None = 1
    rate: float | None = None
    left: float | None = None
    all_left: float | None = None
    heard: float = 0.0


class Ended(NamedTuple):
    """A finished session: what it changed and what it took; `known`: it was learned before."""

    stream: str
    number: int
    last: int
    session: str
    known: bool
    steps: int
    seconds: float
    changes: "tuple[Change, ...]"


class Pace:
    """Rates and times left of one stream.

    Args:
        sizes: the steps that each of its sessions will take, as far as its settings tell: what sessions to come are measured by.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.spent: list[tuple[int, float]] = []  # the size of each session learned here, and its seconds
        self.examining = 0.0  # seconds that examining took last
        self.began = self.learned = 0.0
        self.phase: tuple[bool, int] = (False, -1)
        self.first = (0, 0.0)  # steps or sets, and the time, when the phase was first heard of

    def begin(self, now: float) -> None:
        """A session begins."""
        self.began = self.learned = now
        self.phase = (False, -1)

    def hear(self, beat: Beat, images: int, now: float) -> Beat:
        """The beat with its rates and times."""
        learning = beat.doing == "learning"
        if self.phase != (learning, beat.turn):  # what a phase takes before its first word is not its rate
            self.phase, self.first = (learning, beat.turn), (beat.done, now)
        if learning:
            self.learned = now
        done, seconds = beat.done - self.first[0], now - self.first[1]
        if done <= 0 or seconds <= 0:
            return beat
        left = (beat.total - beat.done) * seconds / done
        return beat._replace(rate=done * images / seconds if images else None, left=left, all_left=self._all(beat, left, now))

    def end(self, index: int, now: float) -> None:
        """A session is learned and examined."""
        self.examining = now - self.learned
        if index:
            self.spent.append((self.sizes[index - 1], now - self.began))

    def _all(self, beat: Beat, left: float, now: float) -> float | None:
        size = sum(each for each, _ in self.spent)
        if not size:
            return None
        each_step = sum(seconds for _, seconds in self.spent) / size
        ahead = each_step * sum(self.sizes[beat.number :])
        if beat.doing == "examining":
            return left + ahead
        if beat.turns is not None and beat.turn + 1 >= beat.turns:
            return left + self.examining + ahead
        return max(left, each_step * self.sizes[beat.number - 1] - (now - self.began)) + ahead


def standing(beat: Beat, now: float | None = None, brief: bool = False) -> str:
    """Where a session is, in words; `now`: Unix time, to tell what has not been heard of for a while; `brief`: for half a terminal's width.

    >>> standing(Beat("birds", 2, 5, "may", "learning", 23, 40, rate=310.4, left=12.3, all_left=250))
    '23 of 40 steps, 310 images/s, 12 s left; about 4 min for the whole stream'
    >>> standing(Beat("birds", 2, 5, "may", "learning", 23, 40, rate=310.4, left=12.3, all_left=250), brief=True)
    '23/40 steps, 310 images/s, 12 s left, stream 4 min'
    """
    quiet = now is not None and now - beat.heard > _STALE
    parts = [what(beat, brief), *([f"{beat.rate:,.0f} images/s"] if beat.rate and not quiet else [])]
    if quiet and now is not None:
        return ", ".join([*parts, f"last heard of {span(now - beat.heard)} ago"])
    if beat.left:
        of = " of this round" if beat.turns != 1 and beat.doing == "learning" else ""
        parts.append(f"{span(beat.left)} left{of}")
    if beat.all_left and beat.number < beat.last:
        return ", ".join(parts) + (f", stream {span(beat.all_left)}" if brief else f"; about {span(beat.all_left)} for the whole stream")
    return ", ".join(parts)


def what(beat: Beat, brief: bool = False) -> str:
    """How far it is in what it does now.

    >>> what(Beat("birds", 2, 5, "may", "learning", 23, 40, turn=1, turns=None))
    '23 of 40 steps of round 2 of nobody knows how many'
    """
    of = "/" if brief else " of "
    if beat.doing == "beginning":
        return "begins"
    if beat.doing == "examining":
        return f"examined on {beat.done}{of}{plural(beat.total, 'set')}"
    rounds = "" if beat.turns == 1 else f" of round {beat.turn + 1} of {beat.turns or 'nobody knows how many'}"
    return f"{beat.done}{of}{plural(beat.total, 'step')}{rounds}"


def span(seconds: float) -> str:
    """A time in the unit that people would use.

    >>> [span(each) for each in (0.2, 89, 91, 3700, 100_000)]
    ['1 s', '89 s', '2 min', '1 h 2 min', '27 h 47 min']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def going(beat: Beat) -> str:
    """A line about a session that is under way."""
    return f"{place(*beat[:4])}: {standing(beat)}"


def place(stream: str, index: int, last: int, session: str) -> str:
    """Which session of which stream, in words."""
    return f"{stream}: {index}/{last} {session}"


def line(ended: Ended) -> str:
    """A finished session in one line: what it changed against before (percent), and what it took.

    >>> from cl.evaluation.matrix import Change
    >>> changes = (Change("taught", 0.385, 0.02), Change("forgotten", 0.072, 0.0), Change("probes", 0.41, None))
    >>> line(Ended("birds", 2, 5, "may", False, 40, 11.9, changes))
    'birds: 2/5 may: taught 38.5 (before: 2.0), forgotten 7.2 (before: 0.0), probes 41.0; 40 steps in 12 s'
    """
    names = {"untaught": "to be taught"}
    told = [f"{names.get(change.what, change.what)} {100 * change.now:.1f}{_before(change)}" for change in ended.changes]
    took = "; learned before" if ended.known else f"; {plural(ended.steps, 'step')} in {span(ended.seconds)}" if ended.steps else ""
    return f"{place(*ended[:4])}: {', '.join(told)}{took}"


def _before(change: "Change") -> str:
    """What a number was, and how much of its change only comes of more classes to choose from.

    >>> from cl.evaluation.matrix import Change
    >>> _before(Change("forgotten", 0.667, 0.0, True, 0.633)), _before(Change("forgotten", 0.667, 0.0, True))
    (' (before: 0.0; 63.3 by more classes to choose from alone)', ' (before: 0.0, among fewer classes)')
    >>> _before(Change("forgotten", 0.0, 0.0, True, 0.0))  # nothing to explain
    ' (before: 0.0)'
    """
    if change.before is None:
        return ""
    before = f"{100 * change.before:.1f}"
    if not change.more or f"{100 * change.now:.1f}" == before:
        return f" (before: {before})"
    if change.wider is None:
        return f" (before: {before}, among fewer classes)"
    return f" (before: {before}; {100 * change.wider:.1f} by more classes to choose from alone)"
