"""A method's whole memory as named tensors, and the way back: into one built for the same model, or not at all."""

from collections.abc import Mapping

from torch import Tensor

from cl.errors import StoreError
from cl.methods.base import Method
from cl.text import some

CLIP = "clip."  # what the names of a method's tensors begin with where they are the model's own
MODEL = f"{CLIP}model."  # and what comes before the names that open_clip has for them


def left_out(method: Method) -> frozenset[str]:
    """Names of the clip's weights that the method never trains: they are what they were before it."""
    trained = {id(parameter) for parameter in method.trainable()}
    return frozenset(name for name, parameter in method.named_parameters() if name.startswith(CLIP) and id(parameter) not in trained)


def memory(method: Method) -> dict[str, Tensor]:
    """What outlives a session: all of `state_dict()` but the clip's weights that the method never trains."""
    frozen = left_out(method)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items() if name not in frozen}


def put(method: Method, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights of the clip into a freshly built method, whether it trains them or not.

    Raises:
        StoreError: the weights belong to another model.
    """
    odd = sorted(set(weights) - {f"{CLIP}{name}" for name in method.clip.state_dict()})
    if odd:
        raise StoreError(f"{source}: {len(odd)} weights are none of this model's ({some(odd)}); they were learned with another model")
    _load(method, weights, source)


def restore(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put a memory back into a freshly built method; what is younger than the memory stays as it was built.

    Raises:
        StoreError: the tensors belong to another method or model.
    """
    expected = memory(method)
    odd = sorted(name for name in set(expected) ^ set(tensors) if name in tensors or name.partition(".")[0] not in method.younger)
    if odd:
        raise StoreError(f"{source}: {len(odd)} tensors do not fit the method ({some(odd)}); it was written by another method or model")
    _load(method, tensors, source)


def _load(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    try:
        method.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:
        raise StoreError(f"{source}: shapes do not fit the model ({str(error).splitlines()[-1].strip()})") from error
