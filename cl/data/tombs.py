"""What stays of a collection's sessions that were withdrawn: a file each, so that no number is given twice."""

from pathlib import Path

from pydantic import Field, PositiveInt, ValidationError

from cl.config import Config
from cl.disk.durable import beside
from cl.errors import DataError

NAME = r"\w[\w.-]{0,99}"  # of a session, and of a collection
_STONE = "withdrawn-{:04d}.json"


class Tombstone(Config):
    """What stays of a session that was withdrawn: its name, and its number, which is never given again."""

    name: str = Field(pattern=f"^{NAME}$")
    number: PositiveInt


def tombstones(folder: Path) -> list[Tombstone]:
    """What stays of the sessions that were withdrawn, in order of arrival.

    Raises:
        DataError: a file of that name says something else.
    """
    stones = []
    for file in sorted(folder.glob(_STONE.format(0).replace("0000", "*"))):
        try:
            stone = Tombstone.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{file}: not what stays of a withdrawn session; `dvc checkout` restores it") from error
        if file.name != _STONE.format(stone.number):
            raise DataError(f"{file}: speaks of session {stone.number}; `dvc checkout` restores it")
        stones.append(stone)
    return stones


def place(folder: Path, name: str, number: int) -> None:
    """Put one there, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    with beside(folder / _STONE.format(number)) as part:
        part.write_text(Tombstone(name=name, number=number).model_dump_json(indent=1) + "\n", encoding="utf-8")
