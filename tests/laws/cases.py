"""What the laws are held over: each part with plain partners, each preset, and a pairwise array; all of it read from the registry."""

from dataclasses import replace
from functools import cache
from typing import Any

from cl.data.table import ImageTable, concat
from cl.methods import CONFIGS, PARTS, Method
from cl.methods.combine import Parts, refused
from cl.streams.stream import Session
from tests import make
from tests.golden.numbers import SMALL
from tests.golden.numbers import sessions as golden
from tests.laws.pairwise import array

KINDS = ("labels", "captions", "mixed")
_SMALL: dict[str, Any] = {
    **SMALL,
    "samples": 6,
    "capacity": 6,
    "captions": 8,
    "every": 2,
}  # only make it cheaper
_SMALL["wrong"] = "words"  # those that every session of the laws has
_SMALL |= {"image": (), "text": ()}  # rounds over towers: every term is asked in both
_PARTNERS = {"stored": {"memory": {"kind": "reservoir", "capacity": 6, "store": "features"}}}  # what a part has no meaning without


def sessions(kind: str) -> list[Session]:
    """Two sessions as golden numbers are of; of captions and no class; of rows of which one class has labels; of rows that have it all."""
    match kind:
        case "retrieval":
            return [make.session(index, colours, (), each=6, labels=False, captions=True) for index, colours in ((1, (0, 1)), (2, (2, 3)))]
        case "some":  # labels of one class alone
            return [
                replace(each, data=concat([each.data.take(range(6)), each.data.take(range(6, 12)).without("label")]))
                for each in golden("labels")
            ]
        case "rich":
            return [replace(each, data=_told(each.data)) for each in golden("labels")]
        case _:
            return golden(kind)


def _told(rows: ImageTable) -> ImageTable:
    labels = [str(label) for label in rows.labels]
    told = [[f"two {label} squares, sample {row}", f"the {row}th {label} patch"] for row, label in enumerate(labels)]
    again = [[f"a patch of {label} paint, number {row}"] for row, label in enumerate(labels)]
    wrong = [[f"no {label} at all, sample {row}"] for row, label in enumerate(labels)]
    which = [f"thing {row // 3}" for row in range(len(rows))]
    images = rows.table["image"].to_pylist()
    return ImageTable.of(rows.ids, images, labels, told, rewrites=again, counterfactuals=wrong, identity=which)


def small(seat: str, kind: str) -> dict[str, Any]:
    """A part of a kind, at its defaults but for what makes it cheaper."""
    return {"kind": kind} | {name: value for name, value in _SMALL.items() if name in PARTS[seat][kind].model_fields}


def preset(name: str) -> dict[str, Any]:
    """A method by name, likewise."""
    fields = CONFIGS[name].model_fields
    # of a word that means a number of captions here and a share of them there, only the number makes it cheaper
    return {"name": name} | {
        field: value for field, value in _SMALL.items() if field in fields and not isinstance(fields[field].default, float)
    }


def alone(seat: str, kind: str) -> dict[str, Any]:
    """A recipe of one part and plain partners."""
    part, plain = small(seat, kind), small("terms", "clip")
    return recipe(*([plain, part] if kind != "clip" else [plain])) if seat == "terms" else recipe(plain, **{seat: part})


def recipe(*terms: dict[str, Any], **seats: dict[str, Any]) -> dict[str, Any]:
    """A recipe of these parts, and of what those that weigh something have no meaning without."""
    heavy = [term for term in terms if term.get("weight") != 0]
    partners = {seat: part for term in heavy for seat, part in _PARTNERS.get(term["kind"], {}).items()}
    if "stored" in [term["kind"] for term in heavy] and "memory" in seats:
        seats["memory"] = seats["memory"] | {"store": "features"}
    return {"name": "recipe", "terms": list(terms), **partners, **seats}


UNITS = {f"{seat}: {kind}": alone(seat, kind) for seat, kinds in PARTS.items() for kind in kinds}
PRESETS = {name: preset(name) for name in CONFIGS if name != "recipe"}


@cache
def pairwise() -> dict[str, tuple[dict[str, Any], str]]:
    """Combinations in which every two parts, and every part and kind of data, meet: by name, with the kind of data."""
    factors: dict[str, list[Any]] = {"data": list(KINDS), "terms": list(PARTS["terms"])}
    factors |= {seat: [*([] if seat == "tune" else [None]), *kinds] for seat, kinds in PARTS.items() if seat != "terms"}
    recipes = {}
    for row in array(factors, lambda row: refused(_parts(row)) is None and _taught(row)):
        data, term = row["data"], row["terms"]
        seats = {seat: small(seat, kind) for seat, kind in row.items() if seat in PARTS and seat != "terms" and kind}
        terms = [small("terms", kind) for kind in dict.fromkeys(("clip", term))]
        recipes[" / ".join(str(value) for value in row.values() if value)] = recipe(*terms, **seats), data
    return recipes


def _taught(row: dict[str, Any]) -> bool:
    """Whether sessions of this kind of data are learned: a row that is refused would stand for its other pairs without a trial."""
    if row["data"] == "labels" and row["rounds"] == "pseudolabels":  # they are for rows without a label
        return False
    return bool({"labels": {"labels"}, "captions": {"captions"}}.get(row["data"], set(KINDS)) & set(_made("terms", row["terms"]).wants()))


@cache
def _made(seat: str, kind: str) -> Any:
    return PARTS[seat][kind](**small(seat, kind))


def _parts(row: dict[str, Any]) -> Parts:
    kinds = dict.fromkeys(("clip", row["terms"]))
    seats = {seat: _made(seat, kind) for seat, kind in row.items() if seat in PARTS and seat != "terms" and kind}
    if row["terms"] == "stored" and "memory" in seats:
        seats["memory"] = seats["memory"].model_copy(update={"store": "features"})
    return Parts([_made("terms", kind) for kind in kinds], seats)


def config(settings: dict[str, Any]) -> Any:
    """The settings as the registry reads them."""
    return CONFIGS[settings["name"]](**settings)


def build(settings: dict[str, Any], seed: int = 0) -> Method:
    """The method over the tiny model, all of it in fp64."""
    return config(settings).build(make.tiny().double(), seed).double()  # type: ignore[no-any-return]
