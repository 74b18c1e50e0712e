"""Two versions asked the same images: those their test sets hold, or any that somebody has, with labels, with captions, or without."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable, concat
from cl.errors import DataError, StoreError
from cl.evaluation.answers import Asker
from cl.evaluation.evaluate import evaluate
from cl.evaluation.flips import Answer
from cl.reports.gallery import Comparison, Seen, compare, look
from cl.reports.sides import Side, side_by_side
from cl.store.bundle import Bundle
from cl.streams.build import class_names
from cl.streams.intake import take
from cl.streams.stream import EvalSet
from cl.text import plural, some
from flows.learn.job import outlined
from flows.line.asked import Asked
from flows.registry.as_learned import as_learned
from flows.registry.lineage import line_of, report_of
from flows.registry.predict import chosen, served
from flows.settings import Place

Progress = Callable[[int, int], None]
_AT_ONCE = 256  # images between two words about how far it is


def _untold(done: int, total: int) -> None: ...


def difference(
    place: Place,
    client: MlflowClient,
    models: tuple[str, str],
    on: Path | None = None,
    labels: Sequence[str] = (),
    data_root: str | None = None,
    rev: str | None = None,
    tell: Progress = _untold,
) -> Comparison:
    """How the second version answers otherwise than the first.

    Args:
        place: the project.
        client: of MLflow.
        models: two versions, each NAME, NAME@ALIAS or NAME/VERSION.
        on: a folder or file of images in any layout that is read; default: the test images of the second version's stream.
        labels: candidate classes; default: those that either has learned, and those of the images.
        data_root: the folder with the data sets, where `on` is not given.
        rev: the data's git revision, where `on` is not given; default: as the second version learned it.
        tell: hears how many images are asked, of how many.

    Raises:
        StoreError: no such version, its files cannot be read, or the test images of its stream are not all here.
        DataError: images cannot be used, or there are no classes to choose from.
    """
    before, after = (served(place, client, model) for model in models)
    names = f"{before.name}/{before.version}", f"{after.name}/{after.version}"
    if on is not None:
        return compare(names, _of_folder(on, before.bundle, after.bundle, labels, tell))
    version = chosen(place, client, models[1])
    sets, config = _sets(place, version, data_root, rev)
    one, two = (Side(name, model.bundle.method) for name, model in zip(names, (before, after), strict=True))
    told = [lambda done, total, name, first=first: tell(first + done, 2 * len(sets)) for first in (0, len(sets))]
    return side_by_side(one, two, sets, config, (told[0], told[1]))


def _sets(place: Place, version: ModelVersion, data_root: str | None, rev: str | None) -> tuple[Sequence[EvalSet], EvalConfig]:
    """What a version was examined with: the sets of the line that it grew on, or of its stream."""
    if path := line_of(place, version):
        at = Asked(path, data_root, rev)
        return at.examined(), at.evaluate
    plan, report = outlined(as_learned(version, data_root, rev)), report_of(version)
    sets = [each for each in plan.stream.exam(len(report.sessions)) if each.name in report.matrix.sets]
    if missing := sorted(set(report.matrix.sets) - {each.name for each in sets}):
        told = f"its test sets {some(missing)} are not in the stream as it is read here"
        raise StoreError(f"{version.name}/{version.version}: {told}; give the data as it was with --data-rev, or other images with --on")
    return sets, plan.config.evaluate


def _of_folder(on: Path, before: Bundle, after: Bundle, labels: Sequence[str], tell: Progress) -> Iterator[Seen]:
    """Every image is asked; the test images alone where the folder says which they are."""
    splits, _ = take(on, {}, share=0, unlabelled=True, tell=tell)
    data = splits.get("test") or splits.get("val") or concat(list(splits.values()))
    parts = {
        "labelled": data.where([label is not None for label in data.labels]),
        "captioned": data.where([label is None and bool(own) for label, own in zip(data.labels, data.captions, strict=True)]),
        "unlabelled": data.where([label is None and not own for label, own in zip(data.labels, data.captions, strict=True)]),
    }
    title = on.resolve().name or str(on)
    tables = {name: rows for name, rows in parts.items() if len(rows)}
    candidates = list(dict.fromkeys([*(labels or [each.name for model in (before, after) for each in model.classes]), *data.classes()]))
    if len(candidates) < 2 and tables.keys() - {"captioned"}:
        raise DataError(
            f"{on}: found {plural(len(candidates), 'class', 'classes')} to choose from, expected two or more; name them: --labels a,b,c"
        )
    for name, rows in tables.items():
        called = title if len(tables) == 1 else f"{title}, {name}"
        yield _captioned(called, rows, before, after) if name == "captioned" else _asked(called, rows, candidates, before, after, tell)


def _captioned(name: str, data: ImageTable, before: Bundle, after: Bundle) -> Seen:
    examined, config = EvalSet(name, "retrieve", data), EvalConfig()
    hits = [evaluate(model.method, [examined], config)[name].hits for model in (before, after)]
    (captioned,) = look([examined], {name: (hits[0], hits[1])}, before.method, after.method, config)
    return captioned


def _asked(name: str, data: ImageTable, candidates: Sequence[str], before: Bundle, after: Bundle, tell: Progress) -> Seen:
    """What both say of every row; right is what a row's own label says, where rows have one."""
    labels, config = data.labels, EvalConfig()
    sides: list[dict[int, Answer]] = [{}, {}]
    for turn, model in enumerate((before, after)):
        asker = Asker(model.method, config)
        for start in range(0, len(data), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(data)))
            sides[turn] |= asker.answers(data, rows, _classes(model, candidates))
            tell(turn * len(data) + rows.stop, 2 * len(data))
    if labels[0] is None:
        return Seen(None, name, data, None, sides[0], sides[1])
    then, now = (np.array([side[row].name == label for row, label in enumerate(labels)]) for side in sides)
    return Seen(EvalSet(name, "classify", data, tuple(_classes(after, candidates))), name, data, (then, now), sides[0], sides[1])


def _classes(model: Bundle, names: Sequence[str]) -> list[ClassName]:
    """Each asked as the model has learned it, any other by its template."""
    known = {each.name: each for each in model.classes}
    return [known.get(each.name, each) for each in class_names(names, model.template)]
