"""The model a run starts from: the configured one, or where its folder is not there, one trained on the stream's first session."""

import hashlib
import json
import logging
from pathlib import Path

import pyarrow as pa

from cl.data.table import ImageTable
from cl.disk.files import read_json, write_json
from cl.disk.seal import contents, sealed, unsealed
from cl.errors import StoreError
from cl.learning.progress import Progress
from cl.models.clip import ModelConfig
from cl.models.source import CONFIG
from cl.pretrain import pretrain, save_pretrained
from cl.run_config import RunConfig
from cl.streams.outline import stream_of
from cl.streams.stream import Session

_SEAL = ".seal.json"  # beside the folder, which holds the model alone


def settle(config: RunConfig, data_root: Path, models: Path, progress: Progress | None = None, outlines: Path | None = None) -> RunConfig:
    """The same run with a model that is there.

    Only a run that says how (`pretrain`) and whose `model.name` is a `local-dir:` that does not exist gets another model. It
    is trained once per recipe and data, and kept in a folder of `models` named by both.

    Raises:
        DataError, MethodError: the first session cannot be read, or has neither captions nor labels.
    """
    if config.pretrain is None or not absent(config.model):
        return config
    first = stream_of(config.stream, data_root, outlines).sessions[0]
    recipe = json.dumps([first.digest, config.pretrain.model_dump(mode="json")], sort_keys=True)
    folder = models / hashlib.sha256(recipe.encode()).hexdigest()[:24]
    if not _whole(folder):
        save_pretrained(pretrain(config.pretrain, _captioned(first), first.tests, progress), folder)
        write_json(sealed({"files": contents(folder)}), folder.with_suffix(_SEAL))
    return config.model_copy(update={"model": ModelConfig(name=f"local-dir:{folder}", context=config.model.context)})


def _whole(folder: Path) -> bool:
    """Whether a model was kept there and is what was written; version 0.1.0 wrote no seal."""
    seal = folder.with_suffix(_SEAL)
    if not (folder / CONFIG).exists() or not seal.exists():
        return (folder / CONFIG).exists()
    try:
        whole = unsealed(read_json(seal), str(seal), ()) == {"files": contents(folder)}
    except StoreError:
        whole = False
    if not whole:
        logging.getLogger(__name__).warning("%s: damaged, it is not what was written; it is trained again", folder)
    return whole


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
