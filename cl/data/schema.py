"""The columns of a table of images: those that every one has, and those that one has where some row says something there."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cl.errors import DataError

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # unique within a table
        pa.field("image", pa.large_binary(), nullable=False),  # encoded: PNG, JPEG, WebP, ...; "large" since 2 GiB is not much
        pa.field("label", pa.string()),  # class name; null: unlabelled
        pa.field("captions", _TEXTS, nullable=False),  # empty: none
        pa.field("domain", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC")),
    ]
)
# of a table where they are empty they are left out, so that it is the same to the bit as one that never had them
EXTRAS = pa.schema(
    [
        pa.field("identity", pa.string()),  # which one it is that the image shows: a person, a place, a thing
        pa.field("rewrites", _TEXTS, nullable=False),  # captions in other words: to train with, never to be examined with
        pa.field("counterfactuals", _TEXTS, nullable=False),  # captions that are wrong
    ]
)

TEXTS = ("captions", "rewrites", "counterfactuals")


def columns(table: pa.Table) -> list[str]:
    """The names of all columns that are ours, in their order; images may be left out."""
    return [name for name in (*SCHEMA.names, *EXTRAS.names) if name in table.column_names]


def checked(table: pa.Table) -> pa.Table:
    """The table with its columns in their order and of their types, without those that say nothing.

    Raises:
        DataError: a column is missing, has empty cells where none may be, or another type.
    """
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"table: column {', '.join(missing)} missing; expected {', '.join(SCHEMA.names)}")
    fields = [*SCHEMA, *(field for field in EXTRAS if field.name in table.column_names and _says(table[field.name]))]
    empty = [field.name for field in fields if not field.nullable and table[field.name].null_count]
    if empty:
        raise DataError(f"table: column {', '.join(empty)} has empty cells; every row needs a value there")
    schema = pa.schema(fields)
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(f"table: columns do not have the expected types ({error})") from error


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of tables whose columns are ours; what only some have is empty in the others."""
    some = [name for name in EXTRAS.names if any(name in each.column_names for each in tables)]
    if not some:
        return pa.concat_tables(tables)
    whole = []
    for table in tables:
        for name in some:
            table = table if name in table.column_names else table.append_column(EXTRAS.field(name), blank(name, table.num_rows))
        whole.append(table.select(columns(table)))
    return pa.concat_tables(whole)


def blank(name: str, rows: int) -> pa.Array:
    """A column of which no row says anything."""
    field = EXTRAS.field(name) if name in EXTRAS.names else SCHEMA.field(name)
    return pa.array([[]] * rows, field.type) if pa.types.is_list(field.type) else pa.nulls(rows, field.type)


def _says(column: pa.ChunkedArray) -> bool:
    if pa.types.is_list(column.type):
        return bool(pc.any(pc.greater(pc.list_value_length(column), 0)).as_py())
    return column.null_count < len(column)
