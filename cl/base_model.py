"""The model a run starts from: the configured one, or where its folder is not there, one trained on the stream's first session."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa

from cl.build_stream import build_stream
from cl.clip import ModelConfig
from cl.data import ImageTable
from cl.learner import Progress
from cl.model_source import CONFIG
from cl.pretrain import pretrain, save_pretrained
from cl.run_config import RunConfig
from cl.stream import Session


def settle(config: RunConfig, data_root: Path, models: Path, progress: Progress | None = None) -> RunConfig:
    """The same run with a model that is there.

    Only a run that says how (`pretrain`) and whose `model.name` is a `local-dir:` that does not exist gets another model. It
    is trained once per recipe and data, and kept in a folder of `models` named by both.

    Raises:
        DataError, MethodError: the first session cannot be read, or has neither captions nor labels.
    """
    if config.pretrain is None or not absent(config.model):
        return config
    first = build_stream(config.stream, data_root).sessions[0]
    recipe = json.dumps([first.digest, config.pretrain.model_dump(mode="json")], sort_keys=True)
    folder = models / hashlib.sha256(recipe.encode()).hexdigest()[:24]
    if not (folder / CONFIG).exists():
        save_pretrained(pretrain(config.pretrain, _captioned(first), first.tests, progress), folder)
    return config.model_copy(update={"model": ModelConfig(name=f"local-dir:{folder}")})


def absent(model: ModelConfig) -> bool:
    """Whether the model is a local folder that does not exist."""
    kind, _, path = model.name.partition(":")
    return kind == "local-dir" and not Path(path).expanduser().exists()


def _captioned(session: Session) -> ImageTable:
    # a row without captions is described by its class
    prompts = {known.name: list(known.prompts) for known in session.vocabulary}
    texts = [own or prompts.get(label or "", []) for own, label in zip(session.data.captions, session.data.labels, strict=True)]
    table = session.data.table
    return ImageTable(
        table.set_column(
            table.schema.get_field_index("captions"), table.schema.field("captions"), pa.array(texts, table.schema.field("captions").type)
        )
    )
