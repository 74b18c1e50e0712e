"""What `import cl` gives to who works in Python; nothing in here computes, it calls the rooms below."""

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cl.base_model import settle
from cl.config import Config, EvalConfig, TrainConfig, validate
from cl.data.classes import ClassName
from cl.data.glyphs import write_glyphs
from cl.disk.files import new_folder
from cl.errors import MethodError, StoreError
from cl.evaluation import matrix as metrics
from cl.evaluation.evaluate import at_rest, evaluate, headline, headline_row
from cl.evaluation.matrix import Matrix
from cl.given import PICTURE, Picture, choice, complete, following, mapping, opened, several, stream_settings
from cl.learning.learner import learn
from cl.methods import Method, MethodConfig
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from cl.models.clip import ModelConfig, load
from cl.plan import build_method, check_session, plan
from cl.reports import write
from cl.reports.report import Report
from cl.run import bundle, run
from cl.run_config import RunConfig, overridden, parse_config, parse_method, read_config
from cl.store.bundle import Bundle, read_bundle, write_bundle
from cl.streams.build import StreamConfig, build_stream
from cl.streams.config import PROMPT
from cl.streams.stream import EvalSet, Session, Stream

__all__ = [
    "Matrix",
    "Model",
    "Report",
    "Stream",
    "learn_stream",
    "load_model",
    "matrix",
    "read_stream",
    "recipe",
    "summary",
    "write_glyphs",
    "write_report",
]


class Model:
    """A CLIP under a recipe: it learns one session after the other, and answers in between.

    Args:
        name: `glyph_base` (shipped), `tiny` (random), any name that open_clip knows, `hf-hub:ORG/REPO`, or `local-dir:PATH`.
        pretrained: which weights of that name: a tag of open_clip, `random`, or the path of a .safetensors file.
        context: how many tokens of a text it reads, where not as many as it came with: its positions are stretched (`cl.models.context`).
        recipe: how it learns: the name of a preset, its settings, or what `cl.recipe` gives.
        seed: of batches, crops, random texts and whatever else is drawn.

    Raises:
        ConfigError: a setting of recipe or model that does not exist or has no such value.
        ModelError: there is no such model, or its weights cannot be read.
        MethodError: the recipe cannot be used with this model.

    Attributes:
        recipe: the settings it learns by.
        classes: names of the classes it has learned, in order.
    """

    def __init__(
        self,
        name: str = "glyph_base",
        pretrained: str | None = None,
        *,
        context: int | None = None,
        recipe: str | dict[str, Any] | MethodConfig = "finetune",
        seed: int = 0,
    ) -> None:
        self.recipe = recipe if isinstance(recipe, MethodConfig) else parse_method(recipe, "recipe")
        self._seed, self._learns, self._learned = seed, True, 0
        source = {"name": name, "pretrained": pretrained, "context": context}
        self._method = build_method(self.recipe, load(validate(ModelConfig, source, "Model")), seed)
        # before its first session it is the base model, not what its prompts and heads begin as
        self._answers: MethodConfig = ZeroShotConfig()
        self._asked: Method = self._answers.build(self._method.clip, seed)
        self._known: tuple[ClassName, ...] = ()

    @classmethod
    def _answering(cls, kept: Bundle) -> "Model":
        made = cls.__new__(cls)
        made.recipe = made._answers = kept.config
        made._seed, made._learns = kept.seed, False
        made._method = made._asked = kept.method
        made._known = kept.classes
        return made

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it has learned, in order."""
        return tuple(each.name for each in self._known)

    def learn(self, session: Session, **train: Any) -> None:
        """Take it through one session of a stream; it is changed in place.

        Args:
            session: the next one of `stream.sessions`.
            train: settings of the section `train` of a config, such as `epochs=3, lr=1e-5`; the recipe's own go before them.

        Raises:
            ConfigError: there is no such setting, or no such device.
            DataError: it is no session, or does not follow on what was learned: it is not the next, or moves or drops a class.
            MethodError: the recipe cannot use the session, or the model comes from a folder, which holds what it answers by alone.
            LearningError: a loss is not finite.
        """
        if not self._learns:
            raise MethodError("learn: a model of `load_model` answers and does not learn on; make one by `cl.Model`")
        following(session, self._learned, self._known)
        given = validate(TrainConfig, train, "learn")
        settings = validate(TrainConfig, {**given.model_dump(), **self.recipe.training(session.index > 1)}, "recipe.train")
        check_session(self.recipe, self._method, session, settings)
        learn(self._method, session, settings, self._seed)
        self._asked, self._answers, self._known, self._learned = self._method, self.recipe, session.vocabulary, session.index

    def evaluate(self, sets: Iterable[EvalSet]) -> dict[str, dict[str, float]]:
        """Scores in 0..1 by set and metric: `top1`, `top5`, `ece`, `worst_class` of labels; `recall@1`, `@5`, `@10` of captions.

        Args:
            sets: such as `stream.exam(t)`, the sets as they are asked after `t` sessions.

        Raises:
            DataError: it is no list of sets.
        """
        asked = several(sets, EvalSet, "evaluate", "evaluation sets, such as stream.exam(0)")
        return {name: score.metrics for name, score in evaluate(self._asked, asked, EvalConfig()).items()}

    def predict(self, images: Sequence[Picture], labels: Sequence[str] | None = None, template: str | None = None) -> Float[Tensor, "b k"]:
        """How sure it is of each label: rows of sum 1, in the order of images and labels.

        Args:
            images: paths, or images of Pillow.
            labels: class names; default: the classes it has learned.
            template: a prompt with `{}` where the name goes; default: as a learned class was asked, else `a photo of a {}.`

        Raises:
            ConfigError: the template has no place for a name.
            DataError: an image cannot be read, there are fewer than two labels, or one of both is no list.
        """
        given = several(images, PICTURE, "predict: images", "paths or images")
        names = choice(self.classes if labels is None else labels, self.classes)
        with at_rest(self._asked):
            return self._bundle().shares(map(opened, given), names, (template,) if template else None)

    def similarity(self, images: Sequence[Picture], texts: Sequence[str]) -> Float[Tensor, "b n"]:
        """The cosine of each image with each text, which is taken word for word.

        Raises:
            DataError: an image cannot be read, or one of both is no list.
        """
        given = several(images, PICTURE, "similarity: images", "paths or images")
        asked = several(texts, str, "similarity: texts", "texts")
        with at_rest(self._asked):
            return self._bundle().cosines(map(opened, given), asked)

    def save(self, folder: str | Path) -> None:
        """Write what it answers by to a new folder, whole or not at all: safetensors and JSON, its CLIP in `clip/` as open_clip has it.

        Raises:
            StoreError: the folder exists or cannot be written.
        """
        if Path(folder).exists():
            raise StoreError(f"{folder}: exists already; choose another folder")
        with new_folder(Path(folder).absolute()) as part:
            write_bundle(self._bundle(), part)

    def _bundle(self) -> Bundle:
        return Bundle(self._asked, self._answers, self._seed, PROMPT, self._known)


def load_model(folder: str | Path) -> Model:
    """The model that `Model.save` wrote: it answers bit for bit as it did then, and does not learn on.

    Raises:
        StoreError: the folder is missing, damaged, or of a later release.
        ModelError: its weights are damaged.
    """
    if not Path(folder).is_dir():
        raise StoreError(f"load_model: found no folder {folder}; expected one that Model.save wrote")
    return Model._answering(read_bundle(Path(folder)))


def recipe(name: str = "recipe", **settings: Any) -> MethodConfig:
    """How sessions are learned: a preset with some of its settings, or parts of your own choice.

    >>> recipe("vr_lwf", alpha=2).title(), recipe(terms=["clip", "vocabulary"], tune="lora").title()
    ('vr_lwf', 'clip + vocabulary / lora')

    Args:
        name: of a preset; default: none, the parts are all named.
        settings: of the preset, or the parts: `terms`, `tune`, `memory`, `merge`, `rounds`; a part is its kind, or a mapping with `kind`.

    Raises:
        ConfigError: there is no such preset or setting, or the parts have no meaning together.
    """
    return parse_method({"name": name, **settings}, "recipe")


class _Streamed(Config):
    stream: StreamConfig


def read_stream(settings: Mapping[str, Any], data: str | Path = "data") -> Stream:
    """Sessions in order, with the sets that examine them: what the section `stream` of a config describes.

    What is doubtful about the data or left out of it is logged as a warning.

    Args:
        settings: such as `{"kind": "classes", "sources": {"pets": "pets"}, "increment": 5}`.
        data: the folder that the paths of sources start at.

    Raises:
        ConfigError: a setting that does not exist or has no such value.
        DataError: what is wrong with the data.
    """
    stream = build_stream(validate(_Streamed, {"stream": stream_settings(settings)}, "read_stream").stream, Path(data))
    for remark in stream.told:
        logging.getLogger(__name__).warning("%s: %s", stream.name, remark)
    return stream


def matrix(stream: Stream, rows: Sequence[Mapping[str, Mapping[str, float]]]) -> Matrix:
    """The accuracy matrix of a stream: one row before any session, one after each, a column for each set; scores in 0..1.

    Args:
        stream: what was learned.
        rows: what `Model.evaluate` gave for `stream.exam(0)`, `stream.exam(1)`, ... Top-1 of labels and R@10 of captions go in.

    Raises:
        DataError: a row lacks a set of the stream, or has one of another.
    """
    names = headline(stream.exam(0))
    complete(rows, list(names))
    return Matrix(np.array([headline_row(row, names) for row in rows], dtype=np.float64), tuple(names), stream.taught)


def summary(scores: Matrix) -> dict[str, float]:
    """All metrics of a matrix by name, in 0..1: last, average, learned, forgetting, bwt, fwt, transfer, zero_shot_drop.

    NaN where one is not defined, such as forgetting after a single session. The definitions are those of `cl.evaluation.matrix`.
    """
    return metrics.summary(scores)


def learn_stream(
    config: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, data: str | Path = "data", store: str | Path = "store"
) -> tuple[Report, Model]:
    """Learn the stream of a config from its base model, each session kept on disk: what is there already is found and not learned again.

    Args:
        config: a YAML file, or its content as a mapping.
        overrides: `dotted.key=value` settings, such as `method=vr_lwf` or `train.lr=1e-5`.
        data: the folder that the paths of sources start at.
        store: where states and scores are kept, under the name of all they depend on. Killed, the same call goes on.

    Returns:
        What was found, and the model as it was after the last session.

    Raises:
        ConfigError, DataError, ModelError, MethodError: what is wrong with settings, data, model, or a session.
        LearningError: a loss is not finite.
        StoreError: the store cannot be written.
    """
    asked, place = _settings(config, overrides), Path(store)
    asked = settle(asked, Path(data), place / "models")
    planned = plan(asked, Path(data), uuid.uuid4().hex)  # a name of its own: files may have changed since a stream of them was cut
    for remark in (*planned.remarks(), *planned.chosen):
        logging.getLogger(__name__).info("%s: %s", asked.name, remark)
    planned = replace(planned, data=planned.stream.digest)
    return run(planned, place), Model._answering(bundle(planned, len(planned.stream.sessions), place))


def _settings(config: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    asked = several(overrides, str, "learn_stream: overrides", "settings such as 'train.lr=1e-5'") if overrides else ()
    if isinstance(config, str | Path):
        return read_config(Path(config), asked)
    return parse_config(overridden(mapping(config, "learn_stream", "the path of a YAML file, or its content"), asked), "config")


def write_report(reports: Sequence[Report], folder: str | Path) -> None:
    """Write report.html, report.md and report.json of one report, or of several methods and seeds side by side.

    Raises:
        DataError: it is no list of reports.
        StoreError: the folder cannot be written.
    """
    write.write(several(reports, Report, "write_report", "reports"), Path(folder))
