"""What others published, beside rows of our own of the same protocol: to the digit, with its source, and never under another protocol."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from cl.config import Config
from cl.errors import ConfigError
from cl.evaluation.matrix import last, performance_drop, zscl
from cl.reports.report import Report
from cl.reports.sections import square
from cl.reports.tables import accuracies, incremental, spread
from cl.text import did_you_mean

FILE = Path(__file__).parents[1] / "assets" / "published.yaml"
HOW = {
    "paper": "read in the paper",
    "abstract": "abstract only",
    "code": "recomputed from the authors' matrices",
    "secondary": "secondary",
}
_WHOLE = {  # of every protocol that does not say otherwise: all images of each session teach by their labels and examine
    **dict.fromkeys(("stream.limit", "stream.test_limit", "stream.sessions.*.limit", "stream.sessions.*.test_limit", "evaluate.limit")),
    "stream.test_split": "test",
    "stream.supervision": "labels",
}


class Figure(Config):
    """A row that somebody published, in percent; null: not told."""

    method: str
    values: tuple[float | None, ...]
    source: str
    how: Literal["paper", "abstract", "code", "secondary"]


class Block(Config):
    """Rows that may be compared with each other, and with ours where every setting of `when` is as it says."""

    protocol: str
    metrics: tuple[str, ...]
    read: Literal["zscl", "seen", "last"]
    sessions: int
    when: dict[str, Any]
    figures: tuple[Figure, ...]


class Unlike(NamedTuple):
    """A setting that is another than a protocol has it."""

    setting: str
    found: Any
    expected: Any


@functools.lru_cache(maxsize=1)
def blocks() -> dict[str, Block]:
    """All there are, by name."""
    return {name: Block.model_validate(tree) for name, tree in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()}


def known(name: str) -> str:
    """The name of a block.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in blocks():
        raise ValueError(f"{name!r} is no block of published figures; {did_you_mean(name, sorted(blocks()))}")
    return name


def unlike(block: Block, config: Mapping[str, Any]) -> list[Unlike]:
    """Settings of a run, as plain values, by which it is not of the block's protocol."""
    wanted = {**_WHOLE, **block.when}
    return [Unlike(path, is_set, expected) for path, expected in wanted.items() if (is_set := _at(config, path)) != expected]


def beside(names: Sequence[str], config: Mapping[str, Any]) -> tuple[list[Block], str]:
    """The blocks of a config whose protocol it keeps, and where it keeps none a sentence that says why, about the first.

    Raises:
        ConfigError: there is no such block.
    """
    try:
        named = [blocks()[known(name)] for name in names]
    except ValueError as error:
        raise ConfigError(f"compare.published: {error}") from error
    kept = [block for block in named if not unlike(block, config)]
    if kept or not named:
        return kept, ""
    told = "; ".join(f"{each.setting} is {each.found} and not {each.expected}" for each in unlike(named[0], config))
    return [], f"No published figures stand beside: those of this config are for {named[0].protocol}, and {told}"


def rows(block: Block, groups: Mapping[str, Sequence[Report]]) -> list[list[str]]:
    """Method, a cell per metric, and where it is from: what was measured here first, then what others published.

    A dash stands for what is not defined, as where a stream was not learned to its end, has other sessions than the protocol, or is
    joint training, which has one session and so no average over them.
    """
    ours = [[method, *_measured(block, members), _where(block, members)] for method, members in groups.items()]
    theirs = [[each.method, *map(_shown, each.values), f"{each.source} ({HOW[each.how]})"] for each in block.figures]
    return ours + theirs


def _measured(block: Block, members: Sequence[Report]) -> list[str]:
    read = [_read(block, member) for member in members]
    return [spread([each.get(name, math.nan) for each in read]) for name in block.metrics]


def _where(block: Block, members: Sequence[Report]) -> str:
    joint, others = {_joint(member) for member in members}, {member.matrix.sessions for member in members} - {block.sessions}
    if joint == {True} or not others:
        return "measured here"
    return f"measured here, {min(others)} of {block.sessions} sessions"


def _joint(report: Report) -> bool:
    return report.matrix.sessions == 1 and bool(report.provenance.config.get("joint"))


def _read(block: Block, report: Report) -> Mapping[str, float]:
    values = _READ[block.read](report) or {}
    if report.matrix.sessions == block.sessions:
        return values
    return {name: value for name, value in values.items() if _joint(report) and name == "last"}


def _of_square(report: Report) -> dict[str, float] | None:
    matrix = square(report)
    return None if matrix is None else zscl(matrix)


def _of_seen(report: Report) -> dict[str, float] | None:
    if not incremental(report):
        return None
    curve = accuracies(report)
    return {"first": curve[0], "last": curve[-1], "average": float(np.mean(curve)), "PD": performance_drop(curve)}


def _of_last(report: Report) -> dict[str, float] | None:
    return {"last": last(report.matrix)}


_READ = {"zscl": _of_square, "seen": _of_seen, "last": _of_last}


def _at(tree: Any, path: str) -> Any:
    part, _, rest = path.partition(".")
    if part == "*":
        return next((one for each in (tree if isinstance(tree, list | tuple) else ()) if (one := _at(each, rest)) is not None), None)
    inner = tree.get(part) if isinstance(tree, Mapping) else None
    return _at(inner, rest) if rest else inner


def _shown(value: float | None) -> str:
    return "–" if value is None else str(value)
