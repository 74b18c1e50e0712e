"""Settings are closed: frozen pydantic models read from YAML, with dotted overrides on top."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic import ValidationError as PydanticError
from pydantic_core import InitErrorDetails

from cl.errors import ConfigError
from cl.explain import explain, told
from cl.names import usable
from cl.plain_yaml import LARGEST, parse

Name = Annotated[str, AfterValidator(usable)]  # what a config calls a set, a session, a method
Count = Annotated[PositiveInt, Field(le=10**9)]  # of rows or steps, of which there are as many as there are
Augment = bool | Literal["crop_and_mirror"]


class Config(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, given: Any) -> Any:
        # pydantic takes true for 1 and false for 0: `lr: true` would learn at a rate of one
        wrong = [
            InitErrorDetails(type=kind, loc=(name, *place), input=value)
            for name, kind in (_numbers(cls).items() if isinstance(given, dict) else ())
            for place, value in _switches(given.get(name))
        ]
        if wrong:
            raise PydanticError.from_exception_data(cls.__name__, wrong)
        return given

    def changed(self, *but: str) -> dict[str, Any]:
        """What is not at its default, but for some fields: a setting that is added later, and left alone, renames nothing."""
        return self.model_dump(mode="json", exclude=set(but), exclude_defaults=True)


@functools.cache
def _numbers(schema: type[BaseModel]) -> dict[str, str]:
    """The settings that hold numbers and no switch, with what pydantic calls a wrong value of each; inner groups see to their own."""
    held = {name: set(_leaves(field.annotation)) for name, field in schema.model_fields.items()}
    numbers = {name: leaves & {int, float} for name, leaves in held.items() if not leaves & {bool, Any, BaseModel}}
    return {name: "float_type" if float in kinds else "int_type" for name, kinds in numbers.items() if kinds}


def _leaves(annotation: Any) -> Iterator[Any]:
    if annotation in (int, float, bool, Any):
        yield annotation
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield BaseModel
    for part in get_args(annotation):
        yield from _leaves(part)


def _switches(value: Any) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """Each true and false in plain values, with its place."""
    if isinstance(value, bool):
        yield (), value
    elif isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from (((key, *place), switch) for place, switch in _switches(each))


class Captions(Config):
    """Which caption of a row a step shows."""

    original: float | None = Field(
        None, ge=0, le=1, description="share of visits at which it is none of the rewrites; default: a rewrite is a caption like any"
    )


class TrainConfig(Config):
    """How one session is learned: batches, optimizer, schedule, precision. Units: steps, epochs, learning rate.

    What is null is chosen by method and model (`cl.learning.defaults`), and told with its reason.
    """

    epochs: Count = 5
    batch_size: Count = 64
    max_steps: Count | None = Field(None, description="optimizer steps per session; overrides epochs")
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
    accumulate: Count = Field(
        1,
        description="batches per step; each competes among its own rows alone: for a large batch in little memory, chunk",
    )
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
    captions: Captions = Captions()
    devices: Count = Field(1, description="processes that learn together, each with a GPU of its own or a share of the CPU's threads")
    strategy: Literal["ddp"] = "ddp"  # of Lightning, among devices
    chunk: Count | None = Field(
        None, description="images or texts encoded at a time: large batches in little memory, exactly, for one more forward pass"
    )
    workers: NonNegativeInt = Field(0, le=256)
    checkpoint: NonNegativeFloat = Field(60.0, description="seconds between checkpoints within a session; 0: none")
    device: Literal["auto", "cpu", "gpu"] = "auto"


def _overlay(given: dict[str, Any]) -> dict[str, Any]:
    try:
        TrainConfig.model_validate(given)
    except PydanticError as error:
        raise told(explain(error, given, TrainConfig)) from error
    return given


Overlay = Annotated[dict[str, Any], AfterValidator(_overlay)]  # some training settings, to lay over others


class EvalConfig(Config):
    """How a matrix row is measured."""

    batch_size: Count = 256
    limit: Count | None = Field(None, description="at most this many test images per evaluation set, evenly spread")
    precision: Literal["32", "bf16"] = "32"
    geometry: NonNegativeInt = Field(32, le=10**9, description="image-text pairs per set whose angles to the start are measured; 0: none")
    alike: bool = Field(
        False, description="of a set with labels also recall at 1 and mean average precision of an image's class among its other images"
    )
    known_unknown: bool = Field(
        False, description="AUROC and FPR95 of classes learned so far against those of each other set; update: of each probe"
    )


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
        given = os.environ.get(match[1], match[2])
        if given is None:
            raise ConfigError(f"{path}: the environment variable {match[1]} is not set; set it or write ${{{match[1]}:-default}}")
        return given

    tree = parse(_VARIABLE.sub(value, text), str(path))
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else type(tree).__name__
        raise ConfigError(f"{path}: found {kind}, expected a mapping of settings")
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
        result = _put(result, key.split("."), _number(parse(text, f"override {assignment!r:.200}")), f"override {assignment!r}")
    return result


def _put(node: Any, path: Sequence[str], value: Any, source: str) -> Any:
    # a copy of the node with the value at the path: names lead into groups, numbers into lists
    part, *rest = path
    if not isinstance(node, dict | list):
        raise ConfigError(f"{source}: there is {node!r} where {part!r} should be, not a group of settings")
    if isinstance(node, list):
        if not (part.isdecimal() and int(part) < len(node)):
            raise ConfigError(f"{source}: {part!r} is no place in a list of {len(node)}; they count from 0")
        place = int(part)
        return [*node[:place], _put(node[place], rest, value, source) if rest else value, *node[place + 1 :]]
    inner = node.get(part, {})
    if rest and not isinstance(inner, dict | list):
        raise ConfigError(f"{source}: {part!r} holds {inner!r}, not a group of settings")
    return {**node, part: _put(inner, rest, value, source) if rest else value}


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
