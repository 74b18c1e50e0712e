"""`evergreen data`: make, take in and look at data sets, and keep them under DVC's pin."""

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.durable import land
from cl.errors import DataError
from flows.console import bar, err, out, table
from flows.settings import Place, begin

if TYPE_CHECKING:
    from cl.data import ImageTable

app = typer.Typer(no_args_is_help=True, help="Make, take in and look at data sets; DVC keeps their versions.")

RootOption = Annotated[
    str | None, typer.Option("--data-root", envvar="EVERGREEN_DATA", help="The folder with the data sets  [default: data]")
]


@app.command()
def glyphs(data_root: RootOption = None) -> None:
    """Draw the embedded data set: 54,000 pairs of a character's image and its name (about 20 seconds)."""
    folder = _folder(begin(), data_root)
    from cl.glyphs import write_glyphs

    part = _part(folder, "glyphs")
    try:
        with bar("drawing glyphs") as tell:
            write_glyphs(part, tell)
        _swap(part, folder / "glyphs")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _pin(folder)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it: the folder below the data root.")],
    path: Annotated[Path, typer.Argument(help="A folder per class, or CSV, TSV, JSON lines, Parquet, WebDataset tars.")],
    image: Annotated[str | None, typer.Option(help="Column of image paths or bytes  [default: by its name]")] = None,
    label: Annotated[str | None, typer.Option(help="Column of class names  [default: by its name]")] = None,
    captions: Annotated[str | None, typer.Option(help="Column of captions  [default: by its name]")] = None,
    domain: Annotated[str | None, typer.Option(help="Column of domains  [default: by its name]")] = None,
    time: Annotated[str | None, typer.Option(help="Column of times  [default: by its name]")] = None,
    split: Annotated[str | None, typer.Option(help="Column of train, val, test  [default: by its name]")] = None,
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Where nothing says what is test: hold out this share of each class.")
    ] = 0.2,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a data set of that name.")] = False,
    data_root: RootOption = None,
) -> None:
    """Take in your own images with labels and/or captions, from whatever layout they are in."""
    folder = _folder(begin(), data_root)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise DataError(f"{name!r}: a data set's name is made of letters, digits, dots, dashes and underscores")
    if (folder / name).exists() and not replace:
        raise DataError(f"{folder / name}: there is a data set of that name; choose another, or give --replace")
    from cl.data import hold_out
    from cl.formats import read_splits

    columns: dict[str, Any] = {"image": image, "label": label, "captions": captions, "domain": domain, "time": time, "split": split}
    with bar(f"reading {path}"):
        splits = read_splits(path, **{role: column for role, column in columns.items() if column})
    if not {"val", "test"} & splits.keys() and test_share:
        splits["train"], splits["test"] = hold_out(splits["train"], test_share)
        err().print(f"nothing says which images are for testing: {test_share:.0%} of each class are held out")
    store(splits, folder / name)
    rows = ", ".join(f"{split} {len(data):,}" for split, data in splits.items())
    err().print(f"{name}: {rows} rows, {len({label for data in splits.values() for label in data.classes()})} classes")
    _pin(folder)


@app.command()
def status(data_root: RootOption = None) -> None:
    """Show the data sets, their version, and whether it is pinned."""
    folder = _folder(begin(writes=False), data_root)
    import pyarrow.parquet as pq

    from flows.data import remote, version

    seen, rows = version(folder), []
    for path in sorted([*folder.glob("[!.]*/*.parquet"), *folder.glob("[!.]*/[!.]*/t*.parquet")]):  # the latter: sessions of a collection
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        rows.append((path.parent.relative_to(folder).as_posix(), path.stem, f"{pq.ParquetFile(path).metadata.num_rows:,}", size))
    out().print(table(str(folder), ["data set", "split", "rows", "size"], rows))
    pinned = f"{folder.name}.dvc says the same" if seen.pinned else f"not what {folder.name}.dvc says; run `dvc add {folder.name}`"
    out().print(
        f"version {seen.digest} ({pinned if seen.source == 'dvc' else 'hash of the files: DVC does not watch over this folder'})",
        soft_wrap=True,
    )
    out().print(f"remote  {remote(folder) or 'none'}", soft_wrap=True)


def store(splits: "Mapping[str, ImageTable]", folder: Path) -> None:
    """Write a data set beside its place and put it there in one move: it appears whole or not at all."""
    from cl.data import write

    part = _part(folder.parent, folder.name)
    try:
        write(splits, part)
        _swap(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _folder(place: Place, data_root: str | None) -> Path:
    folder = Path(data_root or "data").expanduser()
    return folder if folder.is_absolute() else place.root / folder if data_root is None else folder.resolve()


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.{uuid.uuid4().hex}.part"


def _swap(part: Path, target: Path) -> None:
    try:
        old = part.with_suffix(".old.part")
        if target.exists():
            os.replace(target, old)
        land(part, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); free space or choose another --data-root") from error


def _pin(folder: Path) -> None:
    from flows.data import pin, version

    console, name = err(), f"{folder.name}.dvc"
    before, after = pin(folder)
    if after is None:
        told = f"version {version(folder).digest} (hash of the files: there is no DVC project around {folder})"
    elif before == after:
        told = f"{name} is up to date ({after})"
    else:
        told = (
            f"{name} now pins {after}" + (f" instead of {before}" if before else "") + f"; `git add {name}` and commit to keep this version"
        )
    console.print(told, soft_wrap=True)
