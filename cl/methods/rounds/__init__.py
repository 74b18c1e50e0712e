"""How often a session is learned from, and what each time teaches; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.rounds.base import Rounds, RoundsConfig
from cl.methods.rounds.pseudolabels import PseudolabelsConfig
from cl.methods.rounds.towers import TowersConfig

AnyRounds = Annotated[PseudolabelsConfig | TowersConfig, Field(discriminator="kind")]

__all__ = ["AnyRounds", "Rounds", "RoundsConfig"]
