"""What is minimised: objectives, and what holds back; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.terms.align import AlignConfig
from cl.methods.terms.alip import ALIPConfig
from cl.methods.terms.anchor import AnchorConfig
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.class_texts import ClassTextsConfig
from cl.methods.terms.cloob import CLOOBConfig
from cl.methods.terms.clusters import ClustersConfig
from cl.methods.terms.counterfactual import CounterfactualConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.gap import GapConfig
from cl.methods.terms.hold import HoldConfig
from cl.methods.terms.identity import IdentityConfig
from cl.methods.terms.infoloob import InfoLOOBConfig
from cl.methods.terms.l2 import L2Config
from cl.methods.terms.m2mix import M2MixConfig
from cl.methods.terms.names import NamesConfig
from cl.methods.terms.primary import PrimaryConfig
from cl.methods.terms.proto_triplet import ProtoTripletConfig
from cl.methods.terms.reference import ReferenceConfig
from cl.methods.terms.regress import RegressConfig
from cl.methods.terms.siglip import SigLIPConfig
from cl.methods.terms.stored import StoredConfig
from cl.methods.terms.text_rows import TextRowsConfig
from cl.methods.terms.vocabulary import VocabularyConfig

AnyTerm = Annotated[
    FitConfig
    | InfoLOOBConfig
    | CLOOBConfig
    | SigLIPConfig
    | GapConfig
    | M2MixConfig
    | VocabularyConfig
    | NamesConfig
    | ClassTextsConfig
    | ReferenceConfig
    | AlignConfig
    | L2Config
    | HoldConfig
    | StoredConfig
    | RegressConfig
    | AnchorConfig
    | TextRowsConfig
    | PrimaryConfig
    | IdentityConfig
    | ProtoTripletConfig
    | CounterfactualConfig
    | ALIPConfig
    | ClustersConfig,
    Field(discriminator="kind"),
]

__all__ = ["AnyTerm", "Needs", "Term", "TermConfig"]
