"""VR-LwF: learning without forgetting on a replayed random vocabulary (arXiv:2207.09248)."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.base import TermConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.names import NamesConfig
from cl.methods.terms.vocabulary import VocabularyConfig
from cl.methods.tuners.whole import Part, WholeConfig
from cl.methods.view import Kind


class VRLwFConfig(PresetConfig):
    """Distillation over a replayed random vocabulary, fresh at every step (arXiv:2207.09248).

    Defaults as in the authors' code, but for alpha: their program's is 0.5, and their scripts for EuroSAT give the whole model 2 and
    one tower 1.
    """

    name: Literal["vr_lwf"] = "vr_lwf"
    part: Part = "whole"
    alpha: NonNegativeFloat = Field(1.0, description="weight of the distillation terms (the authors use 0.5 to 2)")
    texts: NonNegativeInt = Field(
        100, le=100_000, description="random texts per step; 0: only class names, from the first session on (the authors' LwF)"
    )
    length: int = Field(10, ge=3, le=10_000, description="tokens per random text, start and end included")
    temperature: float = Field(1.0, gt=0, description="what logits are divided by before they are compared; above 1: softer")
    teacher: Kind = Field("session", description=TEACHER)
    lwf: bool = Field(False, description="from the second session on, distil over the class names seen so far as well")
    strict_official: bool = Field(False, description="never draw the last token id, as the authors' off-by-one does")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective, and the distillations; the order of the terms is the one that RESULTS was measured with."""
        same = {"alpha": self.alpha, "temperature": self.temperature, "teacher": self.teacher}
        terms: list[TermConfig] = [FitConfig()]
        if self.texts:
            official = {"texts": self.texts, "length": self.length, "strict_official": self.strict_official}
            terms.insert(0, VocabularyConfig(**same, **official))
        if self.lwf or not self.texts:
            terms.append(NamesConfig(**same, first=not self.texts))
        return RecipeConfig(tune=WholeConfig(part=self.part), terms=tuple(terms))
