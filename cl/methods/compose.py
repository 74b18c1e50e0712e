"""Recipes as settings: any parts that have a meaning together, and presets, which are recipes with a name and a paper."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cl.explain import told
from cl.methods.base import MethodConfig
from cl.methods.combine import Parts, refused
from cl.methods.memories import AnyMemory
from cl.methods.merges import AnyMerge
from cl.methods.part import SEATS, PartConfig, members
from cl.methods.recipe import Candidates, Recipe
from cl.methods.rounds import AnyRounds
from cl.methods.terms import AnyTerm, Term
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners import AnyTuner
from cl.methods.tuners.whole import WholeConfig
from cl.models.clip import Clip

COMPETE = (
    "the classes that compete in a step: those of the session and its exemplars, all seen so far, or those that the batch shows, "
    "which costs no more however many were seen"
)


class Composed(MethodConfig):
    """Settings that name parts; a part may be a bare kind, as a method may be a bare name."""

    @model_validator(mode="before")
    @classmethod
    def _kinds(cls, given: Any) -> Any:
        return spelled_out(given) if isinstance(given, dict) else given

    def seated(self) -> dict[str, PartConfig]:
        """The parts that stand alone, by their field."""
        return {seat: part for seat in SEATS if (part := getattr(self, seat, None)) is not None}


class RecipeConfig(Composed):
    """Any combination that has a meaning: terms over a tuner, with a memory and a merge where they are wanted."""

    name: Literal["recipe"] = "recipe"
    tune: AnyTuner = WholeConfig()
    terms: tuple[AnyTerm, ...] = Field((FitConfig(),), min_length=1, description="what is minimised, asked in this order")
    memory: AnyMemory | None = Field(None, description="what of earlier sessions is kept")
    merge: AnyMerge | None = Field(None, description="what becomes of the weights when a session is learned")
    rounds: AnyRounds | None = Field(None, description="how often a session is learned from, and what each time teaches; default: once")
    candidates: Candidates = Field("lesson", description=COMPETE)
    drop_last: bool = Field(True, description="leave out an epoch's last, short batch where train.drop_last does not say it")

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if why := refused(Parts([term for term in self.terms if not term.absent()], self.seated())):
            raise told(why)
        return self

    def parts(self) -> list[PartConfig]:
        """All parts, terms first."""
        return [*self.terms, *self.seated().values()]

    def located(self, root: Path) -> Self:
        """Each part's."""
        seated = {seat: part.located(root) for seat, part in self.seated().items()}
        return self.model_copy(update=seated | {"terms": tuple(term.located(root) for term in self.terms)})

    def title(self) -> str:
        """Its terms, then what stands alone: "infoloob + vocabulary / lora"."""
        terms = " + ".join(term.called() for term in self.terms)
        return " / ".join([terms, *(part.called() for part in self.seated().values())])

    def wants(self) -> tuple[str, ...]:
        """What every part can learn from."""
        alone = [part for part in self.parts() if part is not self.rounds and not part.absent()]
        kinds = tuple(kind for kind in self.learns if all(kind in part.wants() for part in alone))
        if all("unlabelled" in term.wants() for term in self.terms if not term.absent()) and "captions" in kinds:
            return (*kinds, "unlabelled")
        gives = self.rounds and "unlabelled" in self.rounds.wants()
        return self.rounds.wants() if self.rounds and gives and "labels" in kinds else kinds  # which give labels to rows without

    def training(self, later: bool) -> dict[str, Any]:
        """What the parts want, then what is said for all of them."""
        return _training([*self.parts(), self], later)

    def build(self, clip: Clip, seed: int) -> Recipe:
        """The recipe over a clip that it may change."""
        tuner = self.tune.build(clip, seed)
        terms: dict[str, Term] = {}
        for config in self.terms:
            if not config.absent():
                terms[_free(config.kind, terms)] = config.build(tuner, seed)
        others: dict[str, Any] = {seat: getattr(self, seat).build(tuner, seed) for seat in self.seated() if seat != "tune"}
        own: dict[str, Any] = {"cache": self.tune.cached(tuner), "candidates": self.candidates, "drop_last": self.drop_last}
        return Recipe(clip, seed, tuner=tuner, terms=terms, **own, **others)

    def spelled(self) -> dict[str, Any]:
        """The parts by kind, with what of each is not at its default: a preset and the same recipe spelled out are spelled alike."""
        parts: dict[str, Any] = {seat: part.spelled() for seat, part in self.seated().items()}
        parts["terms"] = [term.spelled() for term in self.terms if not term.absent()]
        return parts | self.changed("name", "label", "train", "later", "terms", *SEATS)


class PresetConfig(Composed):
    """A recipe with a name; a part that is given here takes the place of the preset's own."""

    tune: AnyTuner | None = Field(None, description="what moves, where that is not the preset's own")
    memory: AnyMemory | None = Field(None, description="what of earlier sessions is kept, where that is not the preset's own")
    merge: AnyMerge | None = Field(None, description="what becomes of the weights, where that is not the preset's own")
    rounds: AnyRounds | None = Field(None, description="how often a session is learned from, where that is not the preset's own")
    candidates: Candidates | None = Field(None, description=f"{COMPETE}; null: the preset's own")

    @classmethod
    def _no_place(cls, part: str) -> str:
        name = cls.called()
        if part != "terms":
            return f"{name} has no place for {part}"
        return f"{name} keeps the terms of its paper; `evergreen methods {name}` prints it as a recipe, whose terms can be changed"

    @model_validator(mode="before")
    @classmethod
    def _of_its_terms(cls, given: Any) -> Any:
        # a setting of one of its terms that the preset leaves where it is: only the recipe has it
        for name in [name for name in given if name not in cls.model_fields and name != "kind"] if isinstance(given, dict) else ():
            if terms := [term.called() for term in cls().recipe().terms if name in type(term).model_fields]:
                value = given[name] if isinstance(given[name], int | float | str) and len(str(given[name])) < 40 else "..."
                raise told(
                    f"{cls.called()} has no setting {name}, and its term {terms[0]} has; `evergreen methods {cls.called()}` prints it as a "
                    f"recipe, in which that is terms: [{{kind: {terms[0]}, {name}: {value}}}]"
                )
        return given

    @abstractmethod
    def recipe(self) -> RecipeConfig:
        """The recipe that these settings stand for."""

    def expanded(self) -> RecipeConfig:
        """The same, with the parts that are given."""
        own = {} if self.candidates is None else {"candidates": self.candidates}
        return self.recipe().model_copy(update=self.seated() | own)

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> Self:
        # a setting of a part that another takes the place of would be ignored in silence
        whole, without = self.expanded(), self.recipe()
        if why := refused(Parts([term for term in whole.terms if not term.absent()], whole.seated())):
            raise told(why)
        for name, field in type(self).model_fields.items():
            if name in SEATS or field.is_required() or getattr(self, name) == field.get_default(call_default_factory=True):
                continue
            other = self.model_copy(update={name: field.get_default(call_default_factory=True)})
            if other.recipe() != without and other.expanded() == whole:
                raise told(f"{name} sets what {' and '.join(self.seated())} takes the place of; leave {name} out, or say it there")
        return self

    def located(self, root: Path) -> Self:
        """The parts that are given, each located."""
        return self.model_copy(update={seat: part.located(root) for seat, part in self.seated().items()})

    def title(self) -> str:
        """Its name, and the parts that are given: "vr_lwf / lora"."""
        return " / ".join([self.called(), *(part.called() for part in self.seated().values())])

    def wants(self) -> tuple[str, ...]:
        """As the recipe does."""
        return self.expanded().wants()

    def training(self, later: bool) -> dict[str, Any]:
        """What the recipe's parts want, then what is said for all of them."""
        recipe = self.expanded()
        return _training([*recipe.parts(), recipe, self], later)

    def build(self, clip: Clip, seed: int) -> Recipe:
        """The recipe over a clip that it may change."""
        return self.expanded().build(clip, seed)

    def spelled(self) -> dict[str, Any]:
        """As the recipe is."""
        return self.expanded().spelled()


def kinds(seat: str) -> dict[str, type[PartConfig]]:
    """What may stand in a field of a recipe, by kind and in the order of its union."""
    return {part.called(): part for part in members(RecipeConfig.model_fields[seat].annotation)}


def laid_over(*groups: dict[str, Any]) -> dict[str, Any]:
    """Training settings, the last said wins; whoever names a rate means it, where rates by epoch were said before.

    >>> laid_over({"lr_epochs": [0.1, 0.2], "epochs": 2}, {"lr": 0.5})
    {'lr_epochs': None, 'epochs': 2, 'lr': 0.5}
    """
    told: dict[str, Any] = {}
    for group in groups:
        told |= ({"lr_epochs": None} if "lr" in group and told.get("lr_epochs") else {}) | group
    return told


def spelled_out(given: dict[str, Any]) -> dict[str, Any]:
    """A method's settings with a group for each part that is a bare kind.

    >>> spelled_out({"tune": "lora", "terms": ["clip", {"kind": "align"}]})
    {'tune': {'kind': 'lora'}, 'terms': [{'kind': 'clip'}, {'kind': 'align'}]}
    """
    seats = {seat: _part(given[seat]) for seat in SEATS if seat in given}
    terms = given.get("terms")
    return given | seats | ({"terms": [_part(term) for term in terms]} if isinstance(terms, list | tuple) else {})


def _part(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else given


def _training(said: Sequence[PartConfig | MethodConfig], later: bool) -> dict[str, Any]:
    """What each says of all sessions, then what each says of `later` ones."""
    return laid_over(*(each.train for each in said), *(each.later for each in said if later))


def _free(kind: str, taken: dict[str, Term]) -> str:
    return next(name for count in range(1, len(taken) + 2) if (name := kind if count == 1 else f"{kind}{count}") not in taken)
