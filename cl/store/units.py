"""Versions kept by hand: what the name of a learned state says of the code that made it.

A unit is a class of a method, or a module that methods share. Its version is a small integer beside its code, raised by whoever
changes what it computes, and by nobody else: a comment renames nothing. Golden numbers (`tests/golden/`) fail until it is raised.
"""

from cl import seeds
from cl.data import images
from cl.learning import learner, loader
from cl.methods import Method
from cl.models import tokens

_SHARED = (images, tokens, seeds, loader, learner)


def units(method: Method) -> dict[str, int]:
    """The version of every unit that takes part where a method learns, by name.

    >>> from cl.models.clip import ModelConfig, load
    >>> from cl.methods import CONFIGS
    >>> sorted(units(CONFIGS["replay"]().build(load(ModelConfig(name="tiny")), 0)))
    ['Fit', 'Method', 'Recipe', 'Rehearsal', 'Whole', 'images', 'learner', 'loader', 'seeds', 'tokens', 'view']
    """
    return method.units() | {part.__name__.rpartition(".")[2]: int(vars(part)["VERSION"]) for part in _SHARED}
