"""How often a session is learned from, and what each time teaches; one file each, named by kind in the union below."""

from cl.methods.rounds.base import Rounds, RoundsConfig
from cl.methods.rounds.pseudolabels import PseudolabelsConfig

AnyRounds = PseudolabelsConfig  # the only one so far; of several a union, as in the other rooms

__all__ = ["AnyRounds", "Rounds", "RoundsConfig"]
