"""What a run is made of, read from YAML; and a comparison, which is many runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from cl.config import Config, EvalConfig, TrainConfig, override, read_yaml, validate
from cl.errors import ConfigError
from cl.evaluation.gate import GateConfig
from cl.learning.host import device
from cl.methods import CONFIGS, AnyMethodConfig, MethodConfig
from cl.methods.compose import spelled_out
from cl.models.clip import ModelConfig
from cl.pretrain import PretrainConfig
from cl.reports.published import known
from cl.streams.build import StreamConfig


class CompareConfig(Config):
    """What `compare` learns the stream with: method names, or groups with a `name`, settings and perhaps a `label`."""

    seeds: list[NonNegativeInt] = Field([0], min_length=1)
    methods: list[str | dict[str, Any]] = Field(min_length=1)
    parallel: PositiveInt = Field(1, description="how many streams to learn at once, each in its own process")
    runner: Literal["processes", "dask", "ray"] = Field("processes", description="who runs them: this machine, or a Dask or Ray cluster")
    published: tuple[Annotated[str, AfterValidator(known)], ...] = Field(
        (), description="blocks of published figures (cl/assets/published.yaml) that stand beside, where the run keeps their protocol"
    )
    cluster: str | None = Field(None, description="address of a running cluster, such as tcp://host:8786; default: one on this machine")


class UpdateConfig(Config):
    """When `update` learns the sessions that wait, one by one and in order, and what becomes of one that the gate refuses.

    The first session of a model never waits.
    """

    policy: Literal["every", "samples", "drift"] = "every"
    samples: PositiveInt = Field(1000, description="samples: learn once so many training images wait")
    false_alarms: float = Field(0.01, gt=0, lt=0.5, description="drift: learn when new images differ from known ones; false alarms allowed")
    images: int = Field(500, ge=10, description="drift: compare at most so many known and new images, evenly spread")
    refused: Literal["set_aside", "retry_with_next", "keep"] = Field(
        "set_aside", description="a refused session: left out; tried once more, together with the next; or kept, and the next grows from it"
    )


class ReportConfig(Config):
    """Tables that a report has only where they are asked for."""

    equity: bool = Field(False, description="which classes gained, weak or strong ones, seen or unseen")
    dialects: bool = Field(False, description="the matrix in the words of other code bases")


class RunConfig(Config):
    """One method on one stream."""

    name: str = Field(pattern=r"^[\w][\w .-]*$", max_length=100)  # of a model, an experiment, and of locks
    seed: NonNegativeInt = 0
    joint: bool = Field(False, description="learn all sessions' data at once: the usual upper bound")
    threads: PositiveInt | None = Field(
        None, le=4096, description="CPU threads; their number decides how sums are rounded; default: torch's"
    )
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig | None = Field(
        None, description="where model is a local-dir that is not there: train one on the first session"
    )
    stream: StreamConfig
    method: AnyMethodConfig
    train: TrainConfig = TrainConfig()
    per_session: dict[str, dict[str, Any]] = Field({}, description="training settings of single sessions by name: {mnist: {lr: 5.0e-5}}")
    evaluate: EvalConfig = EvalConfig()
    gate: GateConfig = GateConfig()
    update: UpdateConfig = UpdateConfig()
    report: ReportConfig = ReportConfig()
    compare: CompareConfig | None = None


def read_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run from a YAML file and `dotted.key=value` overrides.

    Raises:
        ConfigError: names the setting by its path.
    """
    return parse_config(overridden(read_yaml(path), overrides), str(path))


def overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tree with overrides, one after the other; one that changes a method, or a part of it, finds a bare name spelled out."""
    for each in overrides:
        tree = override(_spelled_out(tree), [each])
    return tree


def _spelled_out(tree: dict[str, Any]) -> dict[str, Any]:
    given = tree.get("method")
    method = {"name": given} if isinstance(given, str) else given
    return tree | {"method": spelled_out(method)} if isinstance(method, dict) else tree


def parse_config(tree: dict[str, Any], source: str) -> RunConfig:
    """A run from plain values; `method` may be a bare name, and defaults to finetune."""
    tree = _spelled_out({"method": "finetune"} | tree)
    _known(tree["method"], source)
    return validate(RunConfig, tree, source)


class _Learning(Config):
    method: AnyMethodConfig


def parse_method(given: str | dict[str, Any], source: str) -> MethodConfig:
    """A method from its name or from plain values.

    Raises:
        ConfigError: names the setting by its path.
    """
    tree = _spelled_out({"method": given})
    _known(tree["method"], source)
    return validate(_Learning, tree, source).method


def _known(method: Any, source: str) -> None:
    if isinstance(method, dict) and method.get("name") not in CONFIGS:
        raise ConfigError(
            f"{source}: method.name: unknown method {method.get('name')!r}; there are {', '.join(sorted(CONFIGS))}, and joint in compare"
        )


def label(config: RunConfig) -> str:
    """What a run's method is called in tables."""
    name = config.method.label or config.method.title()
    return ("joint" if name == "finetune" else f"joint {name}") if config.joint else name


def variants(config: RunConfig) -> list[RunConfig]:
    """One run per method and seed of the `compare` section, methods first; the run itself where there is none."""
    if config.compare is None:
        return [config]
    tree = config.model_dump(mode="json", exclude={"compare", "method", "seed", "joint"})
    runs = []
    for entry in config.compare.methods:
        group = {"name": entry} if isinstance(entry, str) else dict(entry)
        together = group.get("name") == "joint" or group.pop("joint", False)
        if group.get("name") == "joint":
            group["name"] = "finetune"
        for seed in config.compare.seeds:
            runs.append(parse_config({**tree, "method": group, "seed": seed, "joint": together}, f"{config.name}: compare.methods"))
    twice = [name for name, count in Counter((label(run), run.seed) for run in runs).items() if count > 1]
    if twice:
        raise ConfigError(f"{config.name}: compare: {twice[0][0]} with seed {twice[0][1]} stands there twice; give each method its label")
    return runs


def called(method: Mapping[str, Any]) -> str:
    """What tables call a method that a record holds, which another release may have written."""
    try:
        return str(method.get("label") or TypeAdapter(AnyMethodConfig).validate_python(method).title())
    except ValidationError:
        return str(method.get("name"))


class Placed(Protocol):
    """A session as far as its training settings ask: its name, and its number in the line."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def index(self) -> int: ...  # noqa: D102


def train_config(config: RunConfig, session: Placed) -> TrainConfig:
    """The training settings of a session: the session's own on top of the run's, then the method's, and `later` from the second on."""
    own = config.per_session.get(session.name, {})
    base = validate(TrainConfig, {**config.train.model_dump(), **own}, f"{config.name}: per_session.{session.name}")
    return validate(TrainConfig, {**base.model_dump(), **config.method.training(session.index > 1)}, f"{config.name}: method.train")


def check_device(config: RunConfig) -> None:
    """Raise where some session would be learned on a device that this machine has not: before anything, not after hours.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    groups = [config.method.training(False), config.method.training(True), *config.per_session.values()]
    for wanted in {config.train.device, *(str(group["device"]) for group in groups if "device" in group)}:
        device(wanted)
