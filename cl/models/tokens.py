"""Tokenizers, shared by the models that read alike, and the texts that they have read before."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import open_clip
import torch
from jaxtyping import Int
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor

from cl.errors import ModelError
from cl.models.settings import check_code

VERSION = 1  # see cl/store/units.py

_KNOWN: WeakKeyDictionary[Any, dict[tuple[str, int], Tensor]] = WeakKeyDictionary()  # by tokenizer: (text, length) to ids
_MOST = 50_000  # texts
_FRAMES: WeakKeyDictionary[Any, dict[int, "Frame"]] = WeakKeyDictionary()  # by tokenizer and size of the vocabulary


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


def special(reader: Any, simple: str, hugging_face: str) -> int:
    """A tokenizer's special id, by its name in open_clip's own tokenizer and in Hugging Face's.

    Raises:
        ModelError: it has none.
    """
    own = isinstance(reader, open_clip.SimpleTokenizer)
    token = getattr(reader, simple) if own else getattr(reader.tokenizer, hugging_face)
    if token is None:
        raise ModelError(f"the tokenizer of this model has no {hugging_face}; choose a model with CLIP's own tokenizer")
    return int(token)


class Frame(NamedTuple):
    """What a tokenizer puts around the words of a text, and the ids that are words: all but the special ones."""

    before: Int[Tensor, " a"]
    after: Int[Tensor, " b"]  # the end, and as much padding as a text without words has
    words: Int[Tensor, " w"]
    pad: int

    def around(self, words: Int[Tensor, "n l"]) -> Int[Tensor, "n t"]:
        """Texts of these words at the full context, as the tokenizer itself would have written them.

        Raises:
            ModelError: so many words do not fit.
        """
        count, length = words.shape
        room = (self.after == self.pad).nonzero()[:, 0]
        if length > len(room):
            raise ModelError(f"{length} words do not fit its context, which has room for {len(room)}; choose fewer (method.length)")
        kept = torch.ones(len(self.after), dtype=torch.bool)
        kept[room[len(room) - length :]] = False
        return torch.cat([self.before.expand(count, -1), words, self.after[kept].expand(count, -1)], 1)


def frame(reader: Any, vocab_size: int) -> Frame:
    """How a tokenizer wraps a text, for a model that knows so many ids.

    Raises:
        ModelError: it reads no words.
    """
    known = _FRAMES.setdefault(reader, {})
    if vocab_size not in known:
        known[vocab_size] = _frame(reader, vocab_size)
    return known[vocab_size]


def _frame(reader: Any, vocab_size: int) -> Frame:
    # read off what it makes of a text without words and of one with a word: there is no common way to ask
    bare, some = (tokenize(reader, [text], reader.context_length)[0] for text in ("", "a"))
    differ = (bare != some).nonzero()
    if not len(differ):
        raise ModelError("its tokenizer reads no words; choose a model with CLIP's own tokenizer")
    at = int(differ[0, 0])
    if isinstance(reader, open_clip.SimpleTokenizer):
        return Frame(bare[:at], bare[at:], torch.arange(min(vocab_size, reader.sot_token_id)), 0)
    inner = reader.tokenizer
    ids, special = torch.arange(min(vocab_size, len(inner))), torch.tensor(sorted(set(inner.all_special_ids)))
    pad = 0 if reader.strip_sep_token or inner.pad_token_id is None else int(inner.pad_token_id)
    return Frame(bare[:at], bare[at:], ids[~torch.isin(ids, special)], pad)


@functools.lru_cache(maxsize=4)
def _plain(context: int) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=context)  # reading its merges takes longer than building a small model
