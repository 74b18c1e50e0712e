"""Settings are closed: frozen pydantic models read from YAML, with dotted overrides on top."""

import difflib
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import ValidationError as PydanticError

from cl.errors import ConfigError
from cl.names import usable
from cl.plain_yaml import LARGEST, parse

Name = Annotated[str, AfterValidator(usable)]  # what a config calls a set, a session, a method
Augment = bool | Literal["crop_and_mirror"]


class Config(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def changed(self, *but: str) -> dict[str, Any]:
        """What is not at its default, but for some fields: a setting that is added later, and left alone, renames nothing."""
        return self.model_dump(mode="json", exclude=set(but), exclude_defaults=True)


class TrainConfig(Config):
    """How one session is learned: batches, optimizer, schedule, precision. Units: steps, epochs, learning rate.

    What is null is chosen by method and model (`cl.learning.defaults`), and told with its reason.
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 64
    max_steps: PositiveInt | None = Field(None, description="optimizer steps per session; overrides epochs")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat | None = Field(None, description="default: what does weights of that number no harm, 1e-5 or 1e-4")
    lr_epochs: tuple[PositiveFloat, ...] | None = Field(None, min_length=1, description="of each epoch, the last goes on; instead of lr")
    weight_decay: NonNegativeFloat = 0.0
    decay_all: bool = Field(False, description="gains, biases and the logit scale decay too, as in Mod-X's code")
    momentum: NonNegativeFloat = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with linearly rising learning rate")
    schedule: Literal["cosine", "constant", "cosine_epochs"] = Field(
        "cosine", description="cosine_epochs: one rate for each epoch, rising from zero in the first, as in the pseudolabel code"
    )
    clip_grad: PositiveFloat | None = 1.0
    accumulate: PositiveInt = 1
    max_logit_scale: PositiveFloat | None = Field(
        None, description="exp(logit_scale) is held in [1, this] after each step; default: 100, or what the model came with if that is more"
    )
    drop_last: bool | None = Field(
        None, description="whether an epoch's last, short batch is left out; default: as the method's authors do"
    )
    batch_norm: Literal["frozen", "trained"] | None = Field(
        None, description="statistics of batch normalisation; default: trained where a model begins with random weights, else frozen"
    )
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    augment: Augment = Field(
        False,
        description="true: random crop (scale 0.9 to 1), no mirror, since letters would change; crop_and_mirror: 8/7 of the size, "
        "a random crop of it, mirrored half of the time, as in VR-LwF's code",
    )
    workers: NonNegativeInt = 0
    checkpoint: NonNegativeFloat = Field(60.0, description="seconds between checkpoints within a session; 0: none")
    device: Literal["auto", "cpu", "gpu"] = "auto"


class EvalConfig(Config):
    """How a matrix row is measured."""

    batch_size: PositiveInt = 256
    limit: PositiveInt | None = Field(None, description="at most this many test images per evaluation set, evenly spread")
    precision: Literal["32", "bf16"] = "32"
    geometry: NonNegativeInt = Field(32, description="image-text pairs per set whose angles to the start are measured; 0: none")


C = TypeVar("C", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping with `${NAME:-default}` replaced from the environment.

    Raises:
        ConfigError: the file is missing, is not YAML, is not a mapping, or names an unset variable.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST + 1)  # no more of a file that has no end
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error.__class__.__name__}); give the path of a YAML file") from error

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ConfigError(f"{path}: the environment variable {match[1]} is not set; set it or write ${{{match[1]}:-default}}")
        return found

    tree = parse(_VARIABLE.sub(value, text), str(path))
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else type(tree).__name__
        raise ConfigError(f"{path}: found {found}, expected a mapping of settings")
    return tree


def override(tree: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The tree with `a.b.c=value` assignments applied, values read as YAML; the given tree stays as it was.

    >>> override({"train": {"lr": 1}}, ["train.lr=0.5", "seed=3"])
    {'train': {'lr': 0.5}, 'seed': 3}
    """
    result = {**tree}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {assignment!r}: expected dotted.key=value, such as train.lr=1e-4")
        node = result
        *parents, leaf = key.split(".")
        for parent in parents:
            child = node.get(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"override {assignment!r}: {parent!r} holds {child!r}, not a group of settings")
            node[parent] = {**child}
            node = node[parent]
        node[leaf] = _number(parse(text, f"override {assignment!r:.200}"))
    return result


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 as a string; everyone who types it means the number
    try:
        return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value) else value
    except ValueError:
        return value


def validate(schema: type[C], tree: dict[str, Any], source: str) -> C:
    """The tree as `schema`; a problem is told with the dotted path of the setting and what was expected.

    Raises:
        ConfigError: any problem; the first three are named.
    """
    try:
        return schema.model_validate(tree)
    except PydanticError as error:
        raise ConfigError(f"{source}: {explain(error, tree, schema)}") from error


def explain(error: PydanticError, tree: Any, schema: type[BaseModel] | None = None) -> str:
    """One line for a pydantic error: `train.lrr: unknown setting, did you mean lr?; train.lr: input should be greater than 0`."""
    told = []
    for problem in error.errors()[:3]:
        where = _path(problem["loc"], tree)
        if problem["type"] == "extra_forbidden":
            word, known = str(problem["loc"][-1]), _known(schema, problem["loc"][:-1])
            close = [name for name in known if len(word) > 2 and word in name] or difflib.get_close_matches(word, known)
            told.append(f"{where}: unknown setting" + (f", did you mean {close[0]}?" if close else ""))
        elif problem["type"] == "missing":
            told.append(f"{where}: this setting is required")
        else:
            told.append(f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (found {_short(problem['input'])})")
    more = error.error_count() - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _short(value: Any) -> str:
    shown = reprlib.Repr()  # YAML's aliases make a thousand million words of ten lines
    shown.maxlevel, shown.maxstring = 3, 80
    return shown.repr(value)[:80]


def _path(loc: Sequence[str | int], tree: Any) -> str:
    # pydantic names the chosen member of a union as if it were a key; what was given has no such key
    told = []
    for place, part in enumerate(loc):
        inside = (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        )
        if not inside and place < len(loc) - 1 and isinstance(part, str):
            continue
        told.append(str(part))
        tree = tree[part] if inside else None
    return ".".join(told) or "top level"


def _known(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> list[str]:
    # names of the settings at a place; a part of the place that is no setting names the chosen member of a union
    groups = [schema] if schema else []
    for part in loc:
        inner = [each for group in groups if part in group.model_fields for each in _groups(group.model_fields[str(part)].annotation)]
        chosen = [group for group in groups if any(part in get_args(field.annotation) for field in group.model_fields.values())]
        groups = inner or chosen or groups
    return [name for group in groups for name in group.model_fields]


def _groups(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _groups(part)
