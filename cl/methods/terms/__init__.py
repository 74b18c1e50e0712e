"""What is minimised: objectives, and what holds back; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.terms.align import AlignConfig
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.names import NamesConfig
from cl.methods.terms.vocabulary import VocabularyConfig

AnyTerm = Annotated[FitConfig | VocabularyConfig | NamesConfig | AlignConfig, Field(discriminator="kind")]

__all__ = ["AnyTerm", "Needs", "Term", "TermConfig"]
