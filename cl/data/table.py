"""The one internal form of data: rows of an Arrow table, images kept as encoded bytes, decoded when a worker needs them."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from cl.data.images import decode, opened
from cl.data.schema import EXTRAS, SCHEMA, blank, checked, columns, joined
from cl.disk.durable import beside
from cl.errors import DataError
from cl.text import plural, some

Supervision = Literal["labels", "captions", "both", "none"]  # what rows teach with
SPLITS = ("train", "val", "test")


def fingerprint(image: bytes) -> bytes:
    """The hash that tells whether two images are the same, byte for byte."""
    return hashlib.sha256(image).digest()


class ImageTable:
    """Rows that all follow `cl.data.schema`. Immutable: every operation gives a new table over the same bytes.

    `index` is all of them but the images. Whoever asks for no image opens none: see `outlined`.
    """

    _read: Callable[[], "ImageTable"]  # only where images are not there yet

    def __init__(self, table: pa.Table) -> None:
        self._table: pa.Table | None = checked(table)
        self.index = self._table.drop_columns(["image"])

    def __len__(self) -> int:
        return int(self.index.num_rows)

    @classmethod
    def outlined(cls, index: pa.Table, read: Callable[[], "ImageTable"]) -> "ImageTable":
        """The rows of an `index` whose images are not there yet: `read` gives the very same rows with them, once one is needed."""
        made = cls.__new__(cls)
        made._table, made._read, made.index = None, read, index
        return made

    def known_as(self, content: str, prints: Sequence[bytes] | None = None) -> "ImageTable":
        """The same table, for who knows what `content` and `prints` say of it: no image is opened to say it."""
        self.__dict__ |= {"_content": content, **({} if prints is None else {"prints": prints})}
        return self

    @property
    def table(self) -> pa.Table:
        """All columns. Images that are not there yet are read.

        Raises:
            DataError: they cannot be, or are no longer those that were outlined.
        """
        if self._table is None:
            self._table = self._read().table
            del self._read  # and with it what else it holds
        return self._table

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        images: Sequence[bytes],
        labels: Sequence[str | None] | None = None,
        captions: Sequence[Sequence[str]] | None = None,
        domains: Sequence[str | None] | None = None,
        times: Sequence[object] | None = None,
        **extras: Sequence[object],
    ) -> "ImageTable":
        """A table of columns; those left out are null (captions: empty). `extras`: those of `cl.data.schema.EXTRAS`."""
        n = len(ids)
        plain = [ids, images, labels or [None] * n, captions or [[]] * n, domains or [None] * n, times or [None] * n]
        table = pa.table([pa.array(c, f.type) for c, f in zip(plain, SCHEMA, strict=True)], schema=SCHEMA)
        for name, values in extras.items():
            table = table.append_column(EXTRAS.field(name), pa.array(values, EXTRAS.field(name).type))
        return cls(table)

    @property
    def ids(self) -> list[str]:
        """Sample ids, in row order."""
        return self.index["id"].to_pylist()

    @property
    def labels(self) -> list[str | None]:
        """Class names, in row order; None where a sample has none."""
        return self.index["label"].to_pylist()

    @property
    def captions(self) -> list[list[str]]:
        """Captions, in row order; an empty list where a sample has none."""
        return self.index["captions"].to_pylist()

    @property
    def domains(self) -> list[str | None]:
        """Domain names, in row order."""
        return self.index["domain"].to_pylist()

    @property
    def rewrites(self) -> list[list[str]]:
        """Captions in other words, in row order; an empty list where a sample has none."""
        return self._extra("rewrites")

    @property
    def counterfactuals(self) -> list[list[str]]:
        """Captions that are wrong, in row order; an empty list where a sample has none."""
        return self._extra("counterfactuals")

    @property
    def identities(self) -> list[str | None]:
        """Which one it is that each image shows, in row order; None where that is not told."""
        return self._extra("identity")

    def _extra(self, name: str) -> list[Any]:
        return self.index[name].to_pylist() if name in self.index.column_names else blank(name, len(self)).to_pylist()

    @cached_property
    def prints(self) -> Sequence[bytes]:
        """The fingerprint of each image, in row order."""
        return [fingerprint(image.as_py()) for image in self.table["image"]]

    def classes(self) -> list[str]:
        """Distinct labels in order of first appearance."""
        return [label for label in dict.fromkeys(self.labels) if label is not None]

    def take(self, rows: Sequence[int]) -> "ImageTable":
        """The given rows, in the given order."""
        chosen = pa.array(rows, pa.int64())
        return self._changed(lambda table: table.take(chosen))

    def where(self, keep: Sequence[bool]) -> "ImageTable":
        """The rows for which `keep` is true."""
        chosen = pa.array(keep, pa.bool_())
        return self._changed(lambda table: table.filter(chosen))

    def without(self, *columns: str) -> "ImageTable":
        """The same rows with `label` and/or `captions` forgotten, and what else says the same of them."""
        gone = {"label": ("label", "identity"), "captions": ("captions", "rewrites", "counterfactuals")}
        return self._replaced({name: blank(name, len(self)) for column in columns for name in gone[column]})

    def unlabelled(self, rows: Collection[int]) -> "ImageTable":
        """The same rows, the given ones without their label, nor which one they show."""
        if not rows:
            return self
        told = {"label": self.labels, "identity": self.identities}
        left = {name: [None if row in rows else each for row, each in enumerate(values)] for name, values in told.items()}
        return self._replaced({name: pa.array(values, pa.string()) for name, values in left.items()})

    def under(self, prefix: str) -> "ImageTable":
        """The same rows, `prefix/` before their ids."""
        return self._replaced({"id": pc.binary_join_element_wise(pa.scalar(prefix), self.index["id"], "/")})

    def _replaced(self, values: Mapping[str, pa.Array]) -> "ImageTable":
        """With other values in some columns; one that is not there stays away."""

        def change(table: pa.Table) -> pa.Table:
            for place, field in enumerate(table.schema):
                table = table.set_column(place, field, values[field.name]) if field.name in values else table
            return table

        return self._changed(change)

    def _changed(self, change: Callable[[pa.Table], pa.Table]) -> "ImageTable":
        """What a change of rows, or of columns other than the images, makes; it opens no image."""
        if self._table is None:
            return ImageTable.outlined(change(self.index), lambda: ImageTable(change(self.table)))
        return ImageTable(change(self._table))

    def image(self, row: int) -> Image.Image:
        """The decoded RGB image of one row.

        Raises:
            ImageError: it cannot be used, see `cl.data.images.decode`.
        """
        return decode(self.table["image"][row].as_py(), self.table["id"][row].as_py())

    def digest(self) -> str:
        """32 hex digits that change whenever any value of any row does, and do not depend on chunks, slices or files."""
        return self._digest

    def content(self) -> str:
        """As `digest`, whatever the rows are called: 32 hex digits of what there is to learn from."""
        return self._content

    @cached_property
    def _digest(self) -> str:
        return self._hash(columns(self.table))

    @cached_property
    def _content(self) -> str:
        return self._hash([name for name in columns(self.table) if name != "id"])

    def _hash(self, names: Sequence[str]) -> str:
        state = hashlib.sha256()
        for name in names:
            if name in EXTRAS.names:  # which of them are there differs from table to table
                state.update(f"column {name}".encode())
            _feed(state, self.table[name])
        return state.hexdigest()[:32]


def concat(tables: Sequence[ImageTable]) -> ImageTable:
    """All rows of all tables, in order; it opens no image."""
    if not tables:
        return ImageTable(SCHEMA.empty_table())
    if any(each._table is None for each in tables):
        return ImageTable.outlined(joined([each.index for each in tables]), lambda: ImageTable(joined([each.table for each in tables])))
    return ImageTable(joined([each.table for each in tables]))


def hold_out(data: ImageTable, share: float, seed: int = 0) -> tuple[ImageTable, ImageTable]:
    """The rows split in two, to learn from and to be examined with.

    `share` of each class goes to the second part, but at least one row and never the last; rows without a label count as one
    class. Which rows is decided by the hash of their ids, so that few change sides when data is added.
    """
    by_label: dict[str | None, list[tuple[str, int]]] = {}
    for row, (label, name) in enumerate(zip(data.labels, data.ids, strict=True)):
        by_label.setdefault(label, []).append((hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), row))
    held: set[int] = set()
    for rows in by_label.values():
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        held |= {row for _, row in sorted(rows)[:count]}
    return data.where([row not in held for row in range(len(data))]), data.where([row in held for row in range(len(data))])


def openable(rows: ImageTable, where: str, look: Callable[[bytes, str], object] = opened) -> None:
    """Look at every image: at its header, or with `decode` at all of it.

    Raises:
        DataError: names the first three that cannot be used.
    """

    def fault(name: str, data: pa.LargeBinaryScalar) -> str | None:
        try:
            look(data.as_py(), name)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        each = map if look is opened else pool.map  # headers are read by Python, which gains nothing from threads
        problems = [told for told in each(fault, rows.ids, rows.table["image"]) if told]
    if problems:
        raise DataError(f"{where}: {len(problems)} of {plural(len(rows), 'image')} cannot be used. {some(problems)}")


def write(splits: Mapping[str, ImageTable], folder: Path) -> None:
    """Write one Parquet file per split, byte for byte the same for the same rows; appears whole or not at all.

    Raises:
        DataError: an unknown split name, or the folder cannot be written.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DataError(f"{folder}: unknown split {', '.join(unknown)}; expected some of {', '.join(SPLITS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, data in splits.items():
            with beside(folder / f"{split}.parquet") as part:
                # images are compressed already; zstd is for captions and ids
                pq.write_table(data.table, part, compression="zstd", row_group_size=4096, write_page_index=False)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); free space or choose another folder") from error


def _feed(state: Any, column: pa.ChunkedArray) -> None:
    """Lengths of the values first (-1: null), then the values: no two columns feed the same bytes."""
    if pa.types.is_list(column.type):
        _lengths(state, pc.list_value_length(column))
        _feed(state, pc.list_flatten(column))
    elif pa.types.is_timestamp(column.type):
        _lengths(state, pc.is_valid(column))
        _lengths(state, column.drop_null())
    else:
        _lengths(state, pc.binary_length(column))
        wide = np.dtype(np.int64 if column.type == pa.large_binary() else np.int32)
        for chunk in column.chunks:
            values = chunk.drop_null() if chunk.null_count else chunk  # what lies under a null is undefined
            _, offsets, data = values.buffers()
            if len(values) and data is not None:
                first, last = np.frombuffer(offsets, wide)[[values.offset, values.offset + len(values)]]
                state.update(memoryview(data)[first:last])


def _lengths(state: Any, numbers: pa.ChunkedArray) -> None:
    numbers = pc.fill_null(numbers.cast(pa.int64()), -1)
    state.update(len(numbers).to_bytes(8, "little"))
    state.update(numbers.to_numpy().astype("<i8").tobytes())
