"""Tokenizers, shared by the models that read alike, and the texts that they have read before."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import open_clip
import torch
from jaxtyping import Int
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor

from cl.model_settings import check_code

VERSION = 1  # see cl/units.py

_KNOWN: WeakKeyDictionary[Any, dict[tuple[str, int], Tensor]] = WeakKeyDictionary()  # by tokenizer: (text, length) to ids
_MOST = 50_000  # texts


def tokenizer(text_cfg: Mapping[str, Any], home: Path | None) -> Any:
    """The tokenizer that a model's text settings ask for; `home` is the model's own folder, if it has one.

    Raises:
        ModelError: it names code of its own, which is never run.
    """
    # open_clip.get_tokenizer reads the configuration a second time, for hf-hub: over the network
    context = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = text_cfg.get("tokenizer_kwargs") or {}
    if not text_cfg.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=context, **options) if options else _plain(context)
    mode = text_cfg.get("tokenizer_mode")
    source = str(home or text_cfg["hf_tokenizer_name"])
    for name in ("tokenizer_config.json", "config.json"):
        check_code(Path(source) / name)
    # said outright: left open, transformers asks at the terminal, and a "y" would run what lies beside the weights
    return HFTokenizer(source, context_length=context, tokenizer_mode=mode, **options, trust_remote_code=False)


def tokenize(reader: Any, texts: Sequence[str], length: int) -> Int[Tensor, "n length"]:
    """Token ids, each text read once: class names come up at every step, and reading them was a sixth of a small model's step."""
    if not texts:
        return torch.zeros(0, length, dtype=torch.int64)
    known = _KNOWN.setdefault(reader, {})
    if len(known) + len(texts) > _MOST:
        known.clear()
    new = [text for text in dict.fromkeys(texts) if (text, length) not in known]
    if new:
        known |= zip(((text, length) for text in new), reader(new, context_length=length), strict=True)
    return torch.stack([known[text, length] for text in texts])


@functools.lru_cache(maxsize=4)
def _plain(context: int) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=context)  # reading its merges takes longer than building a small model
