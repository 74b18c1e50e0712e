"""Asking a state what nobody has asked it yet: its cells, each measured against the model before any session."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.disk.seal import sha256
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.evaluation.cells import Cell, Cells, cell_name, measured
from cl.evaluation.evaluate import Progress, each_score, pack, unpack
from cl.evaluation.gains import gains
from cl.evaluation.geometry import Pairs, geometry, pairs
from cl.evaluation.known import acquainted, digest, known_unknown, strangers
from cl.methods import Method
from cl.streams.stream import EvalSet, Session

_NO_HITS = pack(np.zeros(0, dtype=bool))  # of what is told by ranks


@dataclass(frozen=True)
class Question:
    """One set as a state is asked it, and as the model before any session is: digests, and the set itself once it is needed."""

    name: str  # of the set
    asked: str  # `EvalSet.digest` among the candidates of the state
    first: str  # the same among those of the start
    examined: Callable[[], EvalSet]
    at_first: Callable[[], EvalSet]
    teaches: Session | None = None  # the session that this set is about, where it is learned


@dataclass(frozen=True)
class Start:
    """The model before any session, against which everything later is measured: its cells, and the features that angles want."""

    store: Path
    base: str  # digest of its weights
    frozen: Callable[[], Method]
    config: EvalConfig

    @property
    def name(self) -> str:
        """What its cells lie under, which every method over this model shares."""
        return f"base-{self.base}"

    @property
    def cells(self) -> Cells:
        """Its cells."""
        return Cells(self.store, self.name)

    @cached_property
    def method(self) -> Method:
        """The model itself, loaded once it is needed."""
        return self.frozen()

    def features(self, cell: str) -> Path:
        """The file of a set's features."""
        return self.store / "cells" / self.name / f"{cell}.safetensors"

    def keep(self, cell: str, features: Pairs) -> str:
        """Write a set's features where `features` says; returns the SHA-256 of the file.

        Raises:
            OSError: the place cannot be written.
        """
        file = self.features(cell)
        file.parent.mkdir(parents=True, exist_ok=True)
        return write_tensors({"images": features.images.contiguous(), "texts": features.texts.contiguous()}, file)

    def pairs(self, cell: str, known: Cell) -> Pairs | None:
        """What a set's angles are measured against; None: nothing, or not what was written."""
        file = self.features(cell)
        try:
            if known.features is None or sha256(file) != known.features:
                return None
            kept = read_tensors(file)
            return Pairs(kept["images"], kept["texts"])
        except (OSError, StoreError, KeyError):
            return None


def names(questions: Sequence[Question], config: EvalConfig, first: bool = False) -> list[str]:
    """What the cells of questions are called, as the state or as the start is asked."""
    how = measured(config)
    return [cell_name(each.first if first else each.asked, how) for each in questions]


def ask_start(start: Start, questions: Sequence[Question], progress: Progress | None = None) -> dict[str, Cell]:
    """The start's cells by name, those that are missing asked now."""
    known, wanted = start.cells.read(), dict(zip(names(questions, start.config, first=True), questions, strict=True))
    limit = start.config.geometry
    missing = {name: each for name, each in wanted.items() if name not in known or (limit and start.pairs(name, known[name]) is None)}
    fresh: dict[str, Cell] = {}
    for name, examined, cell in _asked(start.method, missing, start.config, lambda each: each.at_first(), progress) if missing else ():
        if limit:
            start_pairs = pairs(start.method, examined, limit)
            cell = replace(cell, features=start.keep(name, start_pairs), geometry=geometry(start_pairs, start_pairs))
        fresh[name] = cell
    start.cells.add(fresh)
    return {name: (known | fresh)[name] for name in wanted}


def ask(
    state: str,
    method: Callable[[], Method],
    start: Start,
    questions: Sequence[Question],
    progress: Progress | None = None,
    same: Mapping[str, Cell] = MappingProxyType({}),
) -> dict[str, Cell]:
    """A state's cells by name, those that are missing asked now; the method is loaded only if some are.

    `same`: cells of a state with the very weights of this one, which need not be asked again.

    Raises:
        StoreError: the cells cannot be kept, or the state is not there.
    """
    cells, config = Cells(start.store, state), start.config
    known, wanted = cells.read(), dict(zip(names(questions, config), questions, strict=True))
    missing = {name: each for name, each in wanted.items() if name not in known}
    if missing:
        before = ask_start(start, list(missing.values()))
        first = dict(zip(missing, names(list(missing.values()), config, first=True), strict=True))
        unknown = {name: each for name, each in missing.items() if name not in same}
        fresh = {
            name: replace(same[name], equity=_gains(each, each.examined(), before[first[name]], same[name], config))
            for name, each in missing.items()
            if name in same
        }
        fresh |= _measured(method(), unknown, before, first, start, progress) if unknown else {}
        cells.add(fresh)
        known |= fresh
    return {name: known[name] for name in wanted}


def ask_known(
    state: str,
    method: Callable[[], Method],
    start: Start,
    ours: Sequence[EvalSet],
    others: Sequence[EvalSet],
    classes: tuple[ClassName, ...],
) -> tuple[dict[str, str], dict[str, Cell]]:
    """How well a state tells the images of other sets from those of the classes it has learned; by set, its cell's name, and the cells.

    Args:
        state: its name.
        method: loads it, if something has not been asked yet.
        start: says how, and where.
        ours: sets of what was learned.
        others: all other sets; rows of classes that were learned are left out.
        classes: those that were learned.

    Raises:
        StoreError: the cells cannot be kept, or the state is not there.
    """
    ours, others = ([each for each in sets if each.kind == "classify"] for sets in (ours, others))
    contents, how = [each.data.content() for each in ours], measured(start.config)
    called = {each.name: cell_name(digest(contents, each.data.content(), classes), how) for each in others}
    cells = Cells(start.store, state)
    there = cells.read()
    missing = strangers([each for each in others if called[each.name] not in there], classes)
    known = acquainted(ours, classes) if missing else []
    if known:
        model = method()
        told_apart = known_unknown(model, known, [rows for _, rows in missing], classes, start.config)
        scale = float(model.clip.scale().detach())
        fresh = {called[name]: Cell(told, _NO_HITS, {}, {}, scale) for (name, _), told in zip(missing, told_apart, strict=True)}
        cells.add(fresh)
        there |= fresh
    called = {name: cell for name, cell in called.items() if cell in there}
    return called, {cell: there[cell] for cell in called.values()}


def _measured(
    model: Method,
    unknown: Mapping[str, Question],
    before: Mapping[str, Cell],
    first: Mapping[str, str],
    start: Start,
    progress: Progress | None,
) -> dict[str, Cell]:
    cells_of, config = {}, start.config
    for name, examined, cell in _asked(model, unknown, config, lambda each: each.examined(), progress):
        base = before[first[name]]
        turned = start.pairs(first[name], base) if config.geometry else None
        angles = geometry(turned, pairs(model, examined, config.geometry)) if turned else {}
        cells_of[name] = replace(cell, geometry=angles, equity=_gains(unknown[name], examined, base, cell, config))
    return cells_of


def _gains(asked: Question, examined: EvalSet, before: Cell, after: Cell, config: EvalConfig) -> dict[str, float]:
    sessions = (asked.teaches,) if asked.teaches else ()
    return gains(examined, sessions, unpack(before.hits), unpack(after.hits), config.limit)


def _asked(
    method: Method, missing: Mapping[str, Question], config: EvalConfig, chosen: Callable[[Question], EvalSet], progress: Progress | None
) -> Iterator[tuple[str, EvalSet, Cell]]:
    scale = float(method.clip.scale().detach())
    scores = each_score(method, (chosen(each) for each in missing.values()), config)
    for done, (name, (examined, score)) in enumerate(zip(missing, scores, strict=True), start=1):
        yield name, examined, Cell(score.metrics, pack(score.hits), {}, {}, scale)
        if progress:
            progress(done, len(missing), examined.name)
