"""What a store holds of learned states: weights in a folder of their own, checked when they are read."""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.disk.tensors import read_tensors, tensor_names
from cl.disk.unchanged import hashed
from cl.errors import NewerError, PrunedError, StoreError
from cl.learning.cost import Cost
from cl.methods.persist import CLIP, MODEL

NOTE, WEIGHTS, HASHED = "state.json", "state.safetensors", "hashed.json"
SHARED = "clip.safetensors"  # the clip's weights where a model in open_clip's layout has them too: one file with two names, see share.py
SHARED_HASHED = "hashed-clip.json"
Digest = Callable[[Path, Path], str]  # the SHA-256 of a file; and where it is noted by which file it was last seen
FORMAT = 2  # of the names that tensors have in a state's file: raised where they change, and then the older ones are still read

# what version 0.1.0 wrote of a state
_STATE = ("sha256", "cost", "record")


@dataclass(frozen=True)
class State:
    """A learned state on disk: the hash of its weights file, what learning its session cost, what the method noted, and by what code.

    Its file holds what its method remembers. The clip's weights that the method leaves out are those of the state that it stands on,
    or the base model's. Nothing that is noted is part of a name; what a release did not note has its default.
    """

    sha256: str
    cost: Cost
    record: list[dict[str, Any]]
    code: str = ""  # hash of the sources that learned it
    stands_on: str | None = None  # the state that holds the clip's weights that this one leaves out; None: the base model does
    format: int = FORMAT
    method: str = ""
    bound: dict[str, Any] | None = None  # as `Method.bounds`, by part; in format 1, of the whole method
    parent: str | None = None  # the state that it was learned from
    session: str = ""
    index: int = 0
    finished: str = ""  # ISO 8601, UTC
    versions: dict[str, str] = field(default_factory=dict)  # of Evergreen and of libraries
    pruned: str = ""  # when its weights were dropped (ISO 8601, UTC); "": they are there
    becomes: str = ""  # the hash that its weights have once rows of its memory are gone from them, while they are being rewritten
    withdrawn: int = 0  # rows that its memory lost since it was learned
    shared: str = ""  # the hash of the file that holds its clip's weights instead of its own; "": its own does
    foreign: list[str] = field(default_factory=list)  # what is in that file and not the state's: weights that its method left out


def read_state(folder: Path) -> State:
    """What is noted about the state in a folder; its weights are not looked at.

    Raises:
        StoreError: missing, or not what was written.
        NewerError: a later release wrote it, in a way that this one does not read.
    """
    file = folder / NOTE
    noted = unsealed(read_json(file), str(file), _STATE)
    written = noted.get("format", 1)
    if isinstance(written, int) and written > FORMAT:
        raise NewerError(
            f"{file}: written by a later release of Evergreen (format {written}, this one reads up to {FORMAT}); install that one"
        )
    try:
        state = State(**{"format": 1, **_known(State, noted), "cost": Cost(**_known(Cost, noted["cost"]))})
    except (KeyError, TypeError) as error:  # JSON of something else
        raise StoreError(f"{file}: damaged, it is not what was written ({error})") from error
    below = state.stands_on
    if below is not None and not (isinstance(below, str) and re.fullmatch(r"[\w-]+", below)):
        raise StoreError(f"{file}: damaged, it stands on {below!r}, which is the name of no other state")
    return state


def beneath(folder: Path) -> dict[str, Tensor]:
    """The clip's weights that lie under a state's own: of all it stands on, the later over the earlier; none where it stands on nothing.

    Raises:
        StoreError: one of those states is not there or damaged.
    """
    weights: dict[str, Tensor] = {}
    for below in reversed(_chain(folder)[1:]):
        weights |= {name: tensor for name, tensor in kept_in(below).items() if name.startswith(CLIP)}
    return weights


def kept_in(folder: Path) -> dict[str, Tensor]:
    """All tensors of a state, by the names that its method knows them by.

    Raises:
        StoreError: it is not there or damaged.
    """
    noted = read_state(folder)
    shared = read_tensors(folder / SHARED) if noted.shared else {}
    return {f"{MODEL}{name}": shared[name] for name in shared.keys() - set(noted.foreign)} | read_tensors(folder / WEIGHTS)


def _names(folder: Path) -> frozenset[str]:
    noted = read_state(folder)
    shared = tensor_names(folder / SHARED) - set(noted.foreign) if noted.shared else ()
    return tensor_names(folder / WEIGHTS) | {f"{MODEL}{name}" for name in shared}


def foundation(states: Path, parent: str | None, left_out: Collection[str]) -> str | None:
    """What a state has to stand on that was learned from `parent` and leaves these weights out.

    The nearest whose file holds some of them: the parent, or one beneath it, so that a chain grows with the switches between methods
    and not with the sessions. Names decide, not values, so that no base model has to be read to compare with.

    Raises:
        StoreError: the parent, or what it stands on, is not there or damaged.
    """
    line = _chain(states / parent) if parent else []
    return next((each.name for each in line if _names(each) & set(left_out)), None)


def checked(folder: Path) -> State:
    """The state in a folder, if its weights, and those of all it stands on, are what they were when they were written.

    For who loads them: all of them are read.

    Raises:
        StoreError: names what is missing or damaged.
        NewerError: a later release wrote it.
    """
    return _sound(folder, lambda file, note: sha256(file))


def _sound(folder: Path, digest: Digest) -> State:
    for below in reversed(_chain(folder)):
        state = read_state(below)
        if state.pruned:
            raise PrunedError(f"{below}: its weights were dropped by `evergreen prune` ({state.pruned}){_under(below, folder)}")
        _unchanged(below, digest, _under(below, folder))
    return state


def _unchanged(folder: Path, digest: Digest, under: str) -> None:
    """Raise where one of the files of a state's own weights is not what was written."""
    state = read_state(folder)
    files = [(WEIGHTS, HASHED, (state.sha256, state.becomes)), *([(SHARED, SHARED_HASHED, (state.shared,))] if state.shared else [])]
    for name, note, digests in files:
        try:
            what = "" if digest(folder / name, folder / note) in digests else "damaged, it is not what was written"
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
        if what:
            (folder / note).unlink(missing_ok=True)  # bits may also turn where the system notes no change
            raise StoreError(f"{folder / name}: {what}{under}")


def whole(folder: Path) -> State | None:
    """The state in a folder, or None where it has to be learned again, which is told.

    Weights that are as they were when they were last read are not read again: who loads them does (`checked`).

    Raises:
        NewerError: a later release wrote it.
    """
    try:
        return _sound(folder, hashed)
    except StoreError as error:
        tell(folder, error, "it is learned again")
        return None


def numbers(folder: Path) -> State | None:
    """The state in a folder if it is whole, or whole but for its weights, which were dropped on purpose; None otherwise.

    Raises:
        NewerError: a later release wrote it.
    """
    try:
        noted = read_state(folder)
    except StoreError:
        return None
    return noted if noted.pruned else whole(folder)


def drop(folder: Path) -> int:
    """Drop a state's weights and keep all that is noted of it; returns how many bytes that frees. Killed meanwhile, the same again ends it.

    Raises:
        StoreError: it is not there or damaged, or cannot be written.
    """
    noted = read_state(folder)
    try:
        if not noted.pruned:  # before they go: else they would look damaged, and be learned again
            write_json(sealed(asdict(replace(noted, pruned=now()))), folder / NOTE)
        size = weight(folder)
        for name in (WEIGHTS, SHARED):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); make it writable") from error
    return size


def weight(folder: Path) -> int:
    """The bytes that dropping a state's weights frees: none of a file that has another name elsewhere."""
    files = (folder / name for name in (WEIGHTS, SHARED))
    sizes = (file.lstat() for file in files if file.exists() or file.is_symlink())
    return sum(each.st_size for each in sizes if each.st_nlink == 1)


def _chain(folder: Path) -> list[Path]:
    """The state and all it stands on, from the top down."""
    folders = [folder]
    while True:
        try:
            below = read_state(folders[-1]).stands_on
        except StoreError as error:
            raise StoreError(f"{error}{_under(folders[-1], folder)}") from error
        if below is None:
            return folders
        folders.append(folder.with_name(below))
        if folders[-1] in folders[:-1]:
            raise StoreError(f"{folder / NOTE}: damaged, it stands on itself by way of {' and '.join(each.name for each in folders[1:])}")


def _known(kind: type[State] | type[Cost], noted: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: noted[each.name] for each in fields(kind) if each.name in noted}  # a later release may note more


def _under(below: Path, folder: Path) -> str:
    return "" if below == folder else f", and {folder.name} stands on it"


def now() -> str:
    """The time as notes have it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def tell(folder: Path, error: Exception, what: str) -> None:
    """What is there and cannot be used is not passed over in silence."""
    if folder.exists():
        logging.getLogger(__name__).warning("%s; %s", error, what)
