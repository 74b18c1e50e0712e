"""What a registered version says of images, and the version as files: from what the registry keeps of it, whatever became of its run."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from cl.data.images import LARGEST, decode
from cl.disk.files import new_folder, write_json
from cl.errors import DataError, ModelError, StoreError
from cl.models.hugging_face import write
from cl.store.bundle import Bundle, read_bundle
from flows.history.conclude import standing_of
from flows.registry.champion import CHALLENGER, CHAMPION, as_of, find, only, versions_of
from flows.settings import Place

Layout = Literal["open_clip", "hugging_face"]
Progress = Callable[[int, int], None]
NONE = "none of these"  # the name of what shows none of the names
_BATCH = 64  # images


def _untold(done: int, total: int) -> None: ...


class Served(NamedTuple):
    """A version ready to be asked."""

    name: str
    version: str
    bundle: Bundle


def served(place: Place, client: MlflowClient, model: str | None, moment: datetime | None = None) -> Served:
    """What `chosen` chooses, or the champion as of a moment; a bare date means the end of that day (UTC).

    Raises:
        StoreError: no such model or version, it must not be served, or its files cannot be read.
        ModelError: its weights are damaged.
    """
    version = _servable(place, chosen(place, client, model, moment))
    with _files(place, version) as folder:
        return Served(version.name, str(version.version), read_bundle(folder))


def classify(
    model: Served,
    images: Sequence[Path],
    names: Sequence[str] = (),
    template: str | None = None,
    tell: Progress = _untold,
    none: bool = False,
) -> list[list[tuple[str, float]]]:
    """By image: the names and their shares, the likeliest first; without names, the classes that the model has learned.

    With `none` there is one name more, `NONE`.

    Raises:
        DataError: an image cannot be read, or fewer than two names.
        MethodError: the method cannot tell that an image shows none of them.
    """
    asked = list(dict.fromkeys(names or [known.name for known in model.bundle.classes]))
    if not asked:
        raise DataError(f"{model.name}/{model.version} has learned no classes by name; give --labels a,b,c or --query TEXT")
    if len(asked) + none < 2:
        raise DataError(f"--labels: found {len(asked)} name, expected at least two, separated by commas")
    if none and NONE in asked:
        raise DataError(f"--none: a class is called {NONE!r} itself; ask without it")
    how = (template,) if template else None
    rows = [row for part in _batches(images, tell) for row in model.bundle.shares(part, asked, how, none)]
    every = [*asked, NONE] if none else asked
    return [sorted(zip(every, row.tolist(), strict=True), key=lambda each: -each[1]) for row in rows]


def rank(model: Served, images: Sequence[Path], query: str, tell: Progress = _untold) -> list[tuple[Path, float]]:
    """The images and their cosine with the text, the best first.

    Raises:
        DataError: an image cannot be read, or the text is empty.
    """
    if not query.strip():
        raise DataError("--query: found nothing, expected a text to rank the images by")
    cosines = [value for part in _batches(images, tell) for value in model.bundle.cosines(part, [query])[:, 0].tolist()]
    return sorted(zip(images, cosines, strict=True), key=lambda each: -each[1])


def export(place: Place, client: MlflowClient, model: str, folder: Path, layout: Layout) -> ModelVersion:
    """Write a version, named as for `served`, as a new folder that open_clip or `transformers` reads; whole or not at all.

    `evergreen.json` beside it says which version it is, which classes it has learned and how each is asked.

    Raises:
        StoreError: no such version, it must not be served, its files cannot be read, or the folder exists or cannot be written.
        ModelError: what it learned lies beside its CLIP, or the layout cannot hold its architecture.
    """
    version = _servable(place, chosen(place, client, model))
    if folder.exists():
        raise StoreError(f"{folder}: exists already; choose another folder")
    with _files(place, version) as files:
        bundle = read_bundle(files)
        if bundle.beside:
            name = f"{version.name}/{version.version}"
            learned = f"what {bundle.config.model_dump()['name']} learned lies beside its CLIP, which neither layout holds"
            raise ModelError(f"{name}: {learned}; ask it with `evergreen predict`, or serve it: mlflow models serve -m models:/{name}")
        with new_folder(folder.absolute()) as part:
            if layout == "hugging_face":
                write(bundle.method.clip, part)
            else:
                bundle.method.clip.save(part)
            write_json(_origin(version, bundle), part / "evergreen.json")
    return version


def _origin(version: ModelVersion, bundle: Bundle) -> dict[str, Any]:
    classes = [{"name": each.name, "prompts": list(each.prompts)} for each in bundle.classes]
    return {"model": version.name, "version": str(version.version), "template": list(bundle.template), "classes": classes}


def chosen(place: Place, client: MlflowClient, model: str | None, moment: datetime | None = None) -> ModelVersion:
    """The version that NAME, NAME@ALIAS or NAME/VERSION means, or NAME and a moment.

    Where only one model is registered its name may be left out: None, ALIAS or VERSION.

    Raises:
        StoreError: there is none, or a version and a moment are given.
    """
    name, at, alias = (model or "").partition("@")
    name, slash, number = name.partition("/")
    version = alias if at else number if slash else None
    if not (at or slash) and (model in (None, CHAMPION, CHALLENGER) or name.isdecimal()) and not versions_of(client, name):
        name, version = only(place, client), model
    if moment is None:
        return find(client, name, CHAMPION if version is None else version)
    if version not in (None, CHAMPION):
        raise StoreError(f"{model}: names a version, and --as-of asks which one was champion then; give one of the two")
    if moment.time() == datetime.min.time():
        moment += timedelta(days=1, microseconds=-1)
    return find(client, name, as_of(place, client, name, moment.replace(tzinfo=UTC)))


def _servable(place: Place, version: ModelVersion) -> ModelVersion:
    """The version.

    Raises:
        StoreError: the model's history says that it holds what was withdrawn, or that its weights were pruned.
    """
    if told := standing_of(place, version.name).unfit(str(version.version)):
        raise StoreError(
            f"model {version.name} version {version.version}: {told}; ask another (evergreen history {version.name}), or make one: "
            "evergreen update CONFIG --rebuild"
        )
    return version


@contextmanager
def _files(place: Place, version: ModelVersion) -> Iterator[Path]:
    address = f"models:/{version.name}/{version.version}"
    again = "bring them back, or `evergreen run` or `update` with its config registers it again"
    with tempfile.TemporaryDirectory(dir=place.runs, prefix=".fetched-") as folder:
        try:
            fetched = Path(mlflow.artifacts.download_artifacts(address, dst_path=folder))
        except Exception as error:  # whatever store it lies in raises its own
            why = str(error).partition("\n")[0]
            raise StoreError(f"{address}: its files cannot be read ({why}); {again}") from error
        if not (fetched / "MLmodel").is_file():
            raise StoreError(f"{address}: its files cannot be read (there are none); {again}")
        yield fetched / "artifacts" / "bundle"


def _batches(paths: Sequence[Path], tell: Progress) -> Iterator[Iterator[Image.Image]]:
    """The images as learning sees them, some at a time, each opened when it is asked for: only one is held at its full size."""
    for start in range(0, len(paths), _BATCH):
        tell(start, len(paths))
        yield map(_opened, paths[start : start + _BATCH])
    tell(len(paths), len(paths))


def _opened(path: Path) -> Image.Image:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give image files") from error
    if len(data) > LARGEST:
        raise DataError(f"{path}: over {LARGEST:,} bytes, which is more than is read of an image; give image files")
    return decode(data, str(path))
