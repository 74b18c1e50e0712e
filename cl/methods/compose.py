"""Recipes as settings: any parts that have a meaning together, and presets, which are recipes with a name and a paper."""

from abc import abstractmethod
from typing import Any, Literal

from pydantic import Field

from cl.methods.base import MethodConfig
from cl.methods.recipe import Recipe
from cl.methods.terms import AnyTerm, Term
from cl.methods.tuners import AnyTuner
from cl.methods.tuners.whole import WholeConfig
from cl.models.clip import Clip


class RecipeConfig(MethodConfig):
    """Any combination that has a meaning: terms over a tuner, with a memory and a merge where they are wanted."""

    name: Literal["recipe"] = "recipe"
    tune: AnyTuner = WholeConfig()
    terms: tuple[AnyTerm, ...] = Field(min_length=1, description="what is minimised, asked in this order")
    drop_last: bool = Field(True, description="leave out an epoch's last, short batch where train.drop_last does not say it")

    def build(self, clip: Clip, seed: int) -> Recipe:
        """The recipe over a clip that it may change."""
        tuner = self.tune.build(clip, seed)
        terms: dict[str, Term] = {}
        for config in self.terms:
            if not config.absent():
                terms[_free(config.kind, terms)] = config.build(tuner, seed)
        return Recipe(clip, seed, tuner=tuner, terms=terms, drop_last=self.drop_last)

    def spelled(self) -> dict[str, Any]:
        """The parts by kind, with what of each is not at its default: a preset and the same recipe spelled out are spelled alike."""
        parts = [{"kind": term.kind} | term.changed("kind") for term in self.terms if not term.absent()]
        return {"tune": {"kind": self.tune.kind} | self.tune.changed("kind"), "terms": parts} | self.changed(
            "name", "label", "train", "later", "tune", "terms"
        )


class PresetConfig(MethodConfig):
    """A recipe with a name; a part that is given here takes the place of the preset's own."""

    tune: AnyTuner | None = Field(None, description="what moves, where that is not the preset's own")

    @abstractmethod
    def recipe(self) -> RecipeConfig:
        """The recipe that these settings stand for."""

    def expanded(self) -> RecipeConfig:
        """The same, with the parts that are given."""
        given = {name: part for name in ("tune",) if (part := getattr(self, name)) is not None}
        return self.recipe().model_copy(update=given)

    def build(self, clip: Clip, seed: int) -> Recipe:
        """The recipe over a clip that it may change."""
        return self.expanded().build(clip, seed)

    def spelled(self) -> dict[str, Any]:
        """As the recipe is."""
        return self.expanded().spelled()


def _free(kind: str, taken: dict[str, Term]) -> str:
    return next(name for count in range(1, len(taken) + 2) if (name := kind if count == 1 else f"{kind}{count}") not in taken)
