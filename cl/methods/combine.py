"""Which parts have no meaning together: one table, which is what is checked, what is told, and the page about it (docs/make)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cl.methods.merges.base import MergeConfig
from cl.methods.part import PartConfig, members
from cl.methods.rounds.towers import TowersConfig
from cl.methods.terms import AnyTerm, TermConfig
from cl.methods.terms.objective import ObjectiveConfig
from cl.methods.tuners.base import Tuner

# terms that nothing but moving features changes; gap and m2mix are so where they leave labels to others
_FEATURES = {"regress", "anchor", "identity", "counterfactual", "alip", "clusters", "class_texts", "reference", "primary", "stored"}
_KINDS = {config.called() for config in members(AnyTerm)}
_STRENGTH = ("weight", "alpha")  # by which a term is multiplied


class Parts(NamedTuple):
    """What a recipe is to be made of: the terms that weigh something, and what stands alone by its field."""

    terms: Sequence[TermConfig]
    seats: Mapping[str, PartConfig]

    def kinds(self) -> set[str]:
        """The kinds of the terms."""
        return {term.called() for term in self.terms}


class Refusal(NamedTuple):
    """A combination that has no meaning; `met` is missing where a part says so itself, once it is built or sees a session."""

    what: str
    why: str  # and what to do
    example: str  # a method that is refused, as YAML
    met: Callable[[Parts], bool] | None = None


def _twice(parts: Parts) -> bool:
    said = [{name: value for name, value in term.spelled().items() if name not in _STRENGTH} for term in parts.terms]
    return any(said.count(each) > 1 for each in said)


def _merged(parts: Parts) -> tuple[MergeConfig | None, type[Tuner]]:
    merge, tuner = parts.seats.get("merge"), parts.seats["tune"].makes()
    assert issubclass(tuner, Tuner)
    return merge if isinstance(merge, MergeConfig) else None, tuner


def _changed_factors(parts: Parts) -> bool:
    merge, tuner = _merged(parts)
    return merge is not None and not merge.scales() and not tuner.linear


def _grown(parts: Parts) -> bool:
    merge, tuner = _merged(parts)
    return merge is not None and merge.spans() and tuner.grows


def _along_rounds(parts: Parts) -> bool:
    merge = parts.seats.get("merge")
    return "rounds" in parts.seats and isinstance(merge, MergeConfig) and getattr(merge.makes(), "along", False)


def _pairs_in_rounds(parts: Parts) -> bool:
    objectives = [term for term in parts.terms if isinstance(term, ObjectiveConfig)]
    return _rounds(parts) == "pseudolabels" and (
        any(term.labels == "pairs" for term in objectives) or not any("labels" in term.wants() for term in objectives)
    )


def _rounds(parts: Parts) -> str | None:
    return parts.seats["rounds"].called() if "rounds" in parts.seats else None


def _one_tower(parts: Parts) -> bool:
    tune = parts.seats["tune"]
    return _rounds(parts) == "towers" and (tune.called(), getattr(tune, "part", None)) != ("whole", "whole")


def _silent_round(parts: Parts) -> bool:
    rounds = parts.seats.get("rounds")
    if not isinstance(rounds, TowersConfig):
        return False
    return any(not any(term.teaches and term.called() not in others for term in parts.terms) for others in (rounds.image, rounds.text))


def _still_features(parts: Parts) -> bool:
    leaving = {term.called() for term in parts.terms if term.called() in ("gap", "m2mix") and getattr(term, "labels", "") == "classify"}
    return parts.seats["tune"].called() == "head" and bool((_FEATURES & parts.kinds()) | leaving)


def _strange_round(parts: Parts) -> bool:
    rounds = parts.seats.get("rounds")
    named = rounds.image + rounds.text if isinstance(rounds, TowersConfig) else ()
    return any({name, name.rstrip("0123456789")}.isdisjoint(_KINDS) for name in named)  # the second one of a kind has a number behind it


def _resting(parts: Parts) -> bool:
    rounds, kinds = parts.seats.get("rounds"), parts.kinds()
    of_images = {"identity", "class_texts", "reference", "clusters"} & kinds
    of_images |= {term.called() for term in parts.terms if getattr(term, "prototypes", "text") == "images"}
    return isinstance(rounds, TowersConfig) and not (of_images.isdisjoint(rounds.text) and ({"text_rows"} & kinds).isdisjoint(rounds.image))


def _no_mixer(parts: Parts) -> bool:
    rounds, tuner = parts.seats.get("rounds"), parts.seats["tune"]
    return getattr(rounds, "restart", None) == "mixer" and getattr(tuner, "form", None) != "multimodal"


REFUSALS = (
    Refusal(
        "terms that all weigh 0",
        "every term weighs 0, so that nothing would be minimised; give one a weight",
        "{name: recipe, terms: [{kind: clip, weight: 0}]}",
        lambda parts: not parts.terms,
    ),
    Refusal(
        "only terms that hold back",
        "none of the terms teaches, and those that hold back have nothing to hold; put an objective beside them, such as clip",
        "{name: recipe, terms: [vocabulary, l2]}",
        lambda parts: not any(term.teaches for term in parts.terms),
    ),
    Refusal(
        "one term twice",
        "one term stands there twice, with the same settings; leave it in once, with the weights added",
        "{name: recipe, terms: [clip, {kind: vocabulary, alpha: 1}, {kind: vocabulary, alpha: 2}]}",
        _twice,
    ),
    Refusal(
        "`align` beside `m2mix`",
        "m2mix beside align has no meaning: it moves the very similarities to other pairs that align holds where they were; leave one of "
        "them out",
        "{name: recipe, terms: [clip, m2mix, align]}",
        lambda parts: {"m2mix", "align"} <= parts.kinds(),
    ),
    Refusal(
        "a merge of LoRA's factors",
        "the mean of two products of factors is not the product of their means; merge over another tuner, leave the merge out, or choose "
        "interpolate with reference original, which scales them",
        "{name: recipe, tune: lora, merge: interpolate}",
        _changed_factors,
    ),
    Refusal(
        "a mean over sessions of what grows",
        "what grows from session to session has no mean over sessions; choose merge ensemble, or interpolate with reference session, which "
        "stay within one, or leave the merge out",
        "{name: recipe, tune: head, merge: mean}",
        _grown,
    ),
    Refusal(
        "a hold over a head",
        "hold has an importance for each weight, and what is tuned grows with the classes; take another tuner, or leave the term out",
        "{name: recipe, tune: head, terms: [clip, hold]}",
        lambda parts: parts.seats["tune"].called() == "head" and "hold" in parts.kinds(),
    ),
    Refusal(
        "a random vocabulary over a head",
        "nothing that is tuned here changes what vocabulary holds in its place, so that it would be a constant; take another tuner, or "
        "leave the term out",
        "{name: recipe, tune: head, terms: [clip, vocabulary]}",
        lambda parts: parts.seats["tune"].called() == "head" and "vocabulary" in parts.kinds(),
    ),
    Refusal(
        "features that a head leaves as they are",
        "nothing that is tuned here changes a feature of an image or a text, which is all that regress, anchor, identity, counterfactual, "
        "alip, clusters, class_texts, reference, primary and stored are about, and gap and m2mix unless their labels are pairs; take "
        "another tuner, or leave the term out",
        "{name: recipe, tune: head, terms: [clip, regress]}",
        _still_features,
    ),
    Refusal(
        "images held, or compared with images, where none moves",
        "and the image tower is not tuned; tune it as well, or leave the term out",
        "{name: recipe, tune: {kind: whole, part: text}, terms: [clip, class_texts]}",
    ),
    Refusal(
        "class prompts as rows where no text moves",
        "and the text tower is not tuned; tune it as well, or leave the term out",
        "{name: recipe, tune: {kind: whole, part: image}, terms: [clip, text_rows]}",
    ),
    Refusal(
        "image features computed once under a tuner of the image tower",
        "image features cannot be computed once and kept: the image tower is tuned, so that they change with every step; leave tune.cache "
        "off",
        "{name: recipe, tune: {kind: whole, cache: true}}",
    ),
    Refusal(
        "image features computed once under augmentation",
        "train.augment is set, which makes a new image at every step",
        "{name: recipe, tune: {kind: whole, part: text, cache: true}, train: {augment: true}}",
    ),
    Refusal(
        "`stored` without stored features, or these without it",
        "stored compares with features that a memory keeps by store: features; nothing else reads them; give the recipe both, or neither",
        "{name: recipe, terms: [clip, stored], memory: reservoir}",
        lambda parts: ("stored" in parts.kinds()) != (getattr(parts.seats.get("memory"), "store", "none") == "features"),
    ),
    Refusal(
        "a mean along a session of rounds",
        "a mean of the weights along a session has no meaning over pseudolabels, whose rounds begin again from the same weights; choose a "
        "merge that is made when the session is over",
        "{name: recipe, rounds: pseudolabels, merge: ensemble}",
        _along_rounds,
    ),
    Refusal(
        "pseudolabels that nothing classifies by",
        "pseudolabels weigh labelled and picked rows as two groups, for objectives that classify rows by their label; put clip "
        "beside them, and no objective with labels: pairs",
        "{name: recipe, rounds: pseudolabels, terms: [{kind: clip, labels: pairs}]}",
        _pairs_in_rounds,
    ),
    Refusal(
        "clusters over pseudolabels",
        "clusters are of a session's rows, and each round of pseudolabels teaches others; leave one of them out",
        "{name: recipe, rounds: pseudolabels, terms: [clip, clusters]}",
        lambda parts: _rounds(parts) == "pseudolabels" and "clusters" in parts.kinds(),
    ),
    Refusal(
        "rounds that draw a mixer where there is none",
        "restart mixer draws anew what mixes the prompts of both towers, and what is tuned has no such thing; choose same_init or warm, or "
        "tune prompts with form multimodal",
        "{name: recipe, rounds: {kind: pseudolabels, restart: mixer}}",
        _no_mixer,
    ),
    Refusal(
        "rounds over towers of which one is not tuned",
        "rounds of kind towers teach the image tower and then the text tower, so that both have to be tuned; set tune to whole, with "
        "part whole",
        "{name: recipe, rounds: towers, tune: lora, terms: [clip, identity]}",
        _one_tower,
    ),
    Refusal(
        "a round in which nothing teaches",
        "in one round of kind towers none of the terms that are asked teaches; rounds.image names those that only the first one asks, and "
        "rounds.text those that only the second one does: put one that teaches into each, or into neither",
        "{name: recipe, rounds: towers, terms: [clip]}",
        _silent_round,
    ),
    Refusal(
        "a round of a term that there is not",
        "rounds.image and rounds.text name kinds of terms, and at least one that they name is none; `evergreen parts` lists them",
        "{name: recipe, rounds: {kind: towers, text: [clp]}, terms: [clip, identity]}",
        _strange_round,
    ),
    Refusal(
        "a term in the round of a tower that it is not about",
        "identity, class_texts, reference, clusters and the prototypes of images are about images, which rest in the round of rounds.text, "
        "and text_rows about texts, which rest in that of rounds.image; name a term in the other list, or in neither",
        "{name: recipe, rounds: {kind: towers, image: [], text: [class_texts]}, terms: [clip, class_texts]}",
        _resting,
    ),
    Refusal(
        "two tuners",
        "tune: expected a group of settings",
        "{name: recipe, tune: [{kind: whole}, {kind: lora}]}",
    ),
    Refusal(
        "a part of a closed form",
        "is no recipe, so it has no place for",
        "{name: ridge, terms: [clip]}",
    ),
    Refusal(
        "settings of bridged prompts for others",
        "depth, text_mode and vision_mode are of bridged prompts, which text, visual and multimodal ones are not; leave them out",
        "{name: recipe, tune: {kind: prompts, form: visual, depth: 4}}",
    ),
    Refusal(
        "training settings of its own for what takes no step",
        "and no weight is trained by gradient steps here",
        "{name: ridge, train: {lr: 0.1}}",
    ),
    Refusal(
        "strengths by leave-one-out of keys that are trained",
        "alpha and beta cannot be auto where keys are trained: an image that is left out has moved its key before; give both, or leave "
        "keys at kept",
        "{name: tip, keys: trained, alpha: auto}",
    ),
    Refusal(
        "the terms of a preset",
        "keeps the terms of its paper; `evergreen methods vr_lwf` prints it as a recipe, whose terms can be changed",
        "{name: vr_lwf, terms: [clip]}",
    ),
    Refusal(
        "a setting of a preset whose part is another's",
        "part sets what tune takes the place of; leave part out, or say it there",
        "{name: vr_lwf, part: image, tune: lora}",
    ),
)


def refused(parts: Parts) -> str | None:
    """Why these parts have no meaning together; None where they have one."""
    return next((refusal.why for refusal in REFUSALS if refusal.met and refusal.met(parts)), None)


def table() -> str:
    """All of it in Markdown."""
    rows = [f"| {refusal.what} | {refusal.why} | `{refusal.example}` |" for refusal in REFUSALS]
    return "\n".join(["| what | what is told | such as |", "|---|---|---|", *rows])
