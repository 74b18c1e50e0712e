"""A session half learned, on disk: how far it is, and the tensors that it goes on from."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from cl.disk.files import new_folder, read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.release import made_with
from cl.text import some


class Took(NamedTuple):
    """What whole rounds of a session took."""

    steps: int
    samples: int
    flops: int


class Cursor(NamedTuple):
    """How far a session is: its round, steps of all of that round, FLOPs of its first batch; seconds; and what the rounds before took."""

    turn: int
    done: int
    steps: int
    flops: int
    seconds: float
    past: Took


START = Cursor(0, 0, 0, 0, 0.0, Took(0, 0, 0))


class Interim:
    """The place of one session's checkpoint.

    No state of a random generator is kept, because there is none: batches, crops, captions and random texts are functions of
    (seed, session, round, step), so the cursor alone says what comes next. Tensors are named memory/... (the method's), midway/...
    (what it holds beside), optimizer/..., and round/... (memory and midway as the round found them, from the second on: what it
    learns from follows from them).
    """

    def __init__(self, folder: Path, every: float) -> None:
        self.folder = folder
        self.every = every  # seconds; 0: nothing is written

    def cursor(self) -> Cursor | None:
        """How far the session is by what was kept; None if nothing was, or nothing that it goes on from."""
        try:
            return self._noted()[0]
        except (StoreError, TypeError, KeyError):
            return None

    def read(self) -> "tuple[Cursor, dict[str, Tensor]] | None":
        """What was kept; None if nothing was, or nothing whole: then the session starts over."""
        if not self.folder.exists():
            return None
        try:
            cursor, digest = self._noted()
            if sha256(self.folder / "interim.safetensors") != digest:
                raise StoreError(f"{self.folder / 'interim.safetensors'}: damaged, it is not what was written")
            return cursor, read_tensors(self.folder / "interim.safetensors")
        except (StoreError, OSError, TypeError, KeyError) as error:
            logging.getLogger(__name__).warning("the session starts over: its checkpoint cannot be used (%s)", error)
            return None

    def write(self, cursor: Cursor, tensors: Mapping[str, Tensor]) -> None:
        """Keep it, whole or not at all.

        Raises:
            StoreError: the place cannot be written.
        """
        with new_folder(self.folder) as folder:
            digest = write_tensors(copied(tensors), folder / "interim.safetensors")
            write_json(sealed({**cursor._asdict(), "sha256": digest, "made_with": made_with()}), folder / "cursor.json")

    def _noted(self) -> tuple[Cursor, str]:
        """The cursor, and the digest of the tensors it belongs to; half a session by one library and half by another is refused."""
        file = self.folder / "cursor.json"
        noted = unsealed(read_json(file), str(file), (*Cursor._fields, "sha256"))
        was, now = noted.get("made_with", {}), made_with()
        if was != now:
            changed = [f"{name} {was.get(name, 'of an unknown version')}" for name in {**now, **was} if was.get(name) != now.get(name)]
            raise StoreError(f"{file}: kept by {some(changed)}, which is another here")
        return Cursor(**{name: noted[name] for name in Cursor._fields} | {"past": Took(*noted["past"])}), noted["sha256"]

    def clear(self) -> None:
        """The session is learned: drop it, and what a write left behind that was killed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in self.folder.parent.glob(f".{self.folder.name}.*.part"):
            shutil.rmtree(part, ignore_errors=True)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, on the CPU and in storage of their own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
