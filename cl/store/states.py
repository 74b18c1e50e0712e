"""A method to a state on disk, and back: as it was, or under another method or other settings."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cl.disk.files import new_folder, write_json
from cl.disk.seal import sealed
from cl.disk.tensors import write_tensors
from cl.disk.unchanged import remember
from cl.errors import PrunedError, StoreError
from cl.learning.cost import Cost
from cl.learning.learner import Learned
from cl.methods import Method
from cl.methods.persist import CLIP, left_out, memory, put, restore
from cl.release import code_version, made_with
from cl.store.adopt import Why, adopt
from cl.store.old_names import renamed
from cl.store.store import HASHED, NOTE, WEIGHTS, State, beneath, checked, foundation, kept_in, now
from cl.text import plural


@dataclass(frozen=True)
class Origin:
    """Where a state comes from: the method's name, the state it was learned from, the session, and its number in the line of states."""

    method: str
    parent: str | None
    session: str
    index: int


@dataclass(frozen=True)
class Dropped:
    """What a switch leaves behind of one part: prompts, heads, exemplars, statistics. The clip's weights are none of it."""

    method: str  # that made it; "": of a release that did not note it
    now: str
    tensors: int
    size: int  # bytes
    why: Why
    part: str = ""  # what the names of its tensors begin with; "": of a method that is not made of parts

    def __str__(self) -> str:
        which = "" if self.part in ("", "memory") else f"{self.part}: "
        of = f"{which}{plural(self.tensors, 'tensor')}, {plural(self.size, 'byte')}"
        return f"the memory of {self.method or 'its method'} ({of}): {self.why.value.replace('{now}', self.now)}"


def keep_state(store: Path, name: str, method: Method, learned: Learned, record: list[dict[str, Any]], origin: Origin) -> State:
    """Write a learned method down, whole or not at all.

    Raises:
        StoreError: the place cannot be written, or the state it was learned from is not there.
    """
    states, kept = store / "states", memory(method)
    cost = Cost(
        trainable=sum(parameter.numel() for parameter in method.trainable()),
        stored_bytes=_size(kept),
        seconds=learned.seconds,
        steps=learned.steps,
        samples=learned.samples,
        flops=learned.flops,
    )
    below = foundation(states, origin.parent, left_out(method))
    with new_folder(states / name) as folder:
        state = State(
            sha256=write_tensors(kept, folder / WEIGHTS),
            cost=cost,
            record=record,
            code=code_version(),
            stands_on=below,
            bound=method.bounds(),
            finished=now(),
            versions=made_with(),
            **asdict(origin),
        )
        write_json(sealed(asdict(state)), folder / NOTE)
        remember(folder / WEIGHTS, state.sha256, folder / HASHED)
    return state


def revive(method: Method, state: str, store: Path) -> Method:
    """A freshly built method as it was when the state was kept.

    Raises:
        StoreError: that state, or one that it stands on, is not in this store, or belongs to another method or model.
    """
    folder = store / "states" / state
    _found(folder)
    put(method, beneath(folder), str(folder))
    restore(method, renamed(kept_in(folder), memory(method)), str(folder))
    return method.eval()


def load_state(build: Callable[[], Method], name: str, state: str, store: Path, made: str = "") -> tuple[Method, tuple[Dropped, ...]]:
    """The method that `build` makes over the base model, called `name`, as it goes on from a state, whatever made that.

    The clip's weights carry over, trained or frozen by whatever method. What the state remembers beside them carries over part by part,
    where the method has a part of that kind and it fits the settings of now; else that part starts empty, and what is left behind is
    told. What `build` took from the base model, an original teacher, stays the base model's.

    Args:
        build: makes the method that goes on.
        name: of that method.
        state: what it goes on from.
        store: where states lie.
        made: the method that made the state, for one that does not note it, as those of release 0.1.0.

    Raises:
        StoreError: that state, or one that it stands on, is not in this store, or belongs to another model.
    """
    folder = store / "states" / state
    stored, method = _found(folder), build()
    stored = replace(stored, method=stored.method or made)
    kept = kept_in(folder)
    own = {key: tensor for key, tensor in kept.items() if not key.startswith(CLIP)}
    put(method, beneath(folder) | {key: tensor for key, tensor in kept.items() if key not in own}, str(folder))
    dropped = adopt(method, name, own, stored)
    return method.eval(), tuple(Dropped(stored.method, name, len(held), _size(held), why, part) for part, held, why in dropped)


def _found(folder: Path) -> State:
    try:
        return checked(folder)
    except PrunedError as error:
        raise PrunedError(f"{error}; `evergreen run` with its config learns it again") from error
    except StoreError as error:
        raise StoreError(f"{folder}: this state is not there or was damaged ({error}); run the stream again to make it") from error


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
