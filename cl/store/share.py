"""One file of weights for a state and a model that was written from it: two names of one file, where they lie on one file system.

A version in a registry is in open_clip's layout, which anybody's tools read, so that its file stays as it is. A state has the very same
tensors under longer names, all of them or those that its method trains. They go out of the state's own file, and the model's file gets a
second name in the state's folder: whichever of the two is deleted, the other has it all.
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from cl.disk.durable import land
from cl.disk.files import write_json
from cl.disk.seal import sealed, sha256
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.methods.persist import CLIP, MODEL
from cl.store.store import FORMAT, NOTE, SHARED, WEIGHTS, State, read_state


def share(folder: Path, model: Path) -> bool:
    """Let a state keep its clip's weights in a model's file, if that holds the same ones; whether it does now.

    The state is whole at every moment; killed meanwhile, the same again ends it. Where the file cannot have a second name (another file
    system, a kind of disk without), both keep their own.

    Args:
        folder: of the state.
        model: a file in open_clip's layout, such as `clip/open_clip_model.safetensors` of a bundle.

    Raises:
        StoreError: one of them is not there or damaged, or the state cannot be written.
    """
    noted = read_state(folder)
    if noted.pruned:
        return False
    if noted.shared and not noted.becomes:
        return _again(folder, noted, model)
    kept, theirs = read_tensors(folder / WEIGHTS), read_tensors(model)
    own = {name: tensor for name, tensor in kept.items() if name.startswith(CLIP)}
    try:
        if noted.shared and not own:  # killed after its own file was exchanged
            _note(folder, replace(noted, sha256=noted.becomes, becomes=""))
            return True
        if not own or not _among(own, theirs) or not _named(model, folder / SHARED, folder):
            return False
        rest = {name: tensor for name, tensor in kept.items() if name not in own}
        part = folder / f".{WEIGHTS}.part"
        becomes, shared = write_tensors(rest, part), sha256(folder / SHARED)
        foreign = sorted(name for name in theirs if f"{MODEL}{name}" not in own)
        noted = replace(noted, shared=shared, foreign=foreign, becomes=becomes, format=max(noted.format, FORMAT))
        _note(folder, noted)
        land(part, folder / WEIGHTS)
        _note(folder, replace(noted, sha256=becomes, becomes=""))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); free space or make it writable") from error
    return True


def _among(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether a model has these weights, to the bit."""
    pairs = [(tensor, theirs.get(name.removeprefix(MODEL))) for name, tensor in own.items()]
    return all(there is not None and there.dtype == mine.dtype and torch.equal(mine, there) for mine, there in pairs)


def _again(folder: Path, noted: State, model: Path) -> bool:
    """The same with one more model of the state, or with one that was written anew."""
    mine = folder / SHARED
    if mine.exists() and mine.samefile(model):
        return True
    if sha256(model) != noted.shared:
        return False
    if mine.exists() and sha256(mine) == noted.shared:
        return _named(mine, model, folder)
    return _named(model, mine, folder)


def _named(file: Path, name: Path, folder: Path) -> bool:
    """Give a file a second name, in place of whatever has it; what a kill leaves lies in the state's folder, where it harms nobody."""
    part = folder / f".{SHARED}.{uuid.uuid4().hex}.part"
    try:
        os.link(file, part, follow_symlinks=False)
        land(part, name)
    except OSError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def _note(folder: Path, state: State) -> None:
    write_json(sealed(asdict(state)), folder / NOTE)
