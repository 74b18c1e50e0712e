"""`evergreen data`: make, take in and look at data sets, and keep them under DVC's pin."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.errors import DataError
from cl.text import plural, some
from flows.cli.options import RootOption
from flows.console import bar, err, out, table
from flows.settings import begin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cl.data.table import ImageTable

app = typer.Typer(no_args_is_help=True, help="Make, take in and look at data sets; DVC keeps their versions.")


@app.command()
def glyphs(data_root: RootOption = None) -> None:
    """Draw the embedded data set: 54,000 pairs of a character's image and its name (about 20 seconds)."""
    place = begin()
    folder = place.data_in(data_root)
    from cl.data.glyphs import write_glyphs
    from flows.data.pinned import check_whole
    from flows.data.shelf import put, shelf_locked

    with shelf_locked(place), bar("drawing glyphs") as tell:
        check_whole(folder, folder / "glyphs")
        put(lambda part: write_glyphs(part, tell), folder / "glyphs")
        told = _pinned(folder)
    err().print(told, soft_wrap=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it: the folder below the data root.")],
    path: Annotated[
        Path,
        typer.Argument(help="A folder per class, images with texts beside them, a table, WebDataset tars, or a zip of these."),
    ],
    image: Annotated[str | None, typer.Option(help="Column of image paths or bytes  [default: by its name]")] = None,
    label: Annotated[str | None, typer.Option(help="Column of class names  [default: by its name]")] = None,
    captions: Annotated[str | None, typer.Option(help="Column of captions  [default: by its name]")] = None,
    domain: Annotated[str | None, typer.Option(help="Column of domains  [default: by its name]")] = None,
    time: Annotated[str | None, typer.Option(help="Column of times  [default: by its name]")] = None,
    split: Annotated[str | None, typer.Option(help="Column of train, val, test  [default: by its name]")] = None,
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Where nothing says what is test: hold out this share of each class.")
    ] = 0.2,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Take images that have neither a label nor a caption.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken in, and write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a data set of that name.")] = False,
    data_root: RootOption = None,
) -> None:
    """Take in your own images with labels and/or captions, from whatever layout they are in."""
    place = begin()
    folder = place.data_in(data_root)
    from cl.data.collection import NAME
    from cl.data.table import write
    from cl.streams.intake import take
    from flows.data.pinned import check_whole
    from flows.data.shelf import check_place, put, shelf_locked

    if not re.fullmatch(NAME, name):
        raise DataError(f"{name!r:.130}: a data set's name is made of up to 100 letters, digits, dots, dashes and underscores")
    check_place(folder / name, replace)
    if not dry_run:
        with shelf_locked(place):  # or another that replaces a data set has done so, and not pinned it yet
            check_whole(folder, folder / name)

    columns: dict[str, Any] = {"image": image, "label": label, "captions": captions, "domain": domain, "time": time, "split": split}
    with bar(f"reading {path}") as tell:
        splits, told = take(path, columns, test_share, unlabelled, tell)
    for line in (*map(str, told), f"{name}: {_counted(splits)}{', of which nothing is written' if dry_run else ''}"):
        err().print(line, soft_wrap=True)
    if dry_run:
        return
    with shelf_locked(place):
        put(lambda part: write(splits, part), folder / name, replace)
        pinned = _pinned(folder)
    err().print(pinned, soft_wrap=True)


def _counted(splits: "Mapping[str, ImageTable]") -> str:
    rows = ", ".join(f"{split} {len(data):,}" for split, data in splits.items())
    classes = len({label for data in splits.values() for label in data.classes()})
    return f"{rows} rows, {plural(classes, 'class', 'classes')}"


@app.command()
def status(data_root: RootOption = None) -> None:
    """Show the data sets, their version, and whether it is pinned."""
    folder = begin(writes=False).data_in(data_root)
    import pyarrow as pa
    import pyarrow.parquet as pq

    from flows.data.pinned import mend
    from flows.data.versions import remote, version

    seen, rows, damaged = version(folder), [], []
    for path in sorted([*folder.glob("[!.]*/*.parquet"), *folder.glob("[!.]*/[!.]*/t*.parquet")]):  # the latter: sessions of a collection
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        try:
            count = f"{pq.ParquetFile(path).metadata.num_rows:,}"
        except (pa.ArrowException, OSError):
            count = "damaged"
            damaged.append(path.relative_to(folder).as_posix())
        rows.append((path.parent.relative_to(folder).as_posix(), path.stem, count, size))
    out().print(table(str(folder), ["data set", "split", "rows", "size"], rows))
    if damaged:
        back = (
            f"bring back what {folder.name}.dvc pins (`dvc checkout {folder.name}.dvc`), or"
            if seen.source == "dvc"
            else "put them back, or"
        )
        raise DataError(f"{folder}: {some(damaged)}: damaged, no Parquet file that can be read; {back} take the data set in again")
    told = f"not what {folder.name}.dvc says; {mend(folder) or f'run `dvc add {folder.name}`'}"
    pinned = f"{folder.name}.dvc says the same" if seen.pinned else told
    out().print(
        f"version {seen.digest} ({pinned if seen.source == 'dvc' else 'hash of the files: DVC does not watch over this folder'})",
        soft_wrap=True,
    )
    out().print(f"remote  {remote(folder) or 'none'}", soft_wrap=True)


def _pinned(folder: Path) -> str:
    """Pin it; what that came to."""
    from flows.data.pinned import mend
    from flows.data.versions import pin, version

    name = f"{folder.name}.dvc"
    before, after = pin(folder)
    if after is None and before:
        return f"{name} stays as it is: {mend(folder)}"
    if after is None:
        return f"version {version(folder).digest} (hash of the files: there is no DVC project around {folder})"
    if before == after:
        return f"{name} is up to date ({after})"
    return f"{name} now pins {after}" + (f" instead of {before}" if before else "") + f"; `git add {name}` and commit to keep this version"
