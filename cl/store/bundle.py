"""A learned method as a folder of its own, which answers as it was measured wherever it is read: safetensors and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from cl.data.classes import ClassName
from cl.disk.files import read_json, write_json
from cl.disk.seal import contents, sealed, sha256, unsealed
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.methods import CONFIGS, AnyMethodConfig, Method, MethodConfig
from cl.methods.closed_form import shares_or_none
from cl.methods.persist import memory, restore
from cl.models.clip import ModelConfig, load
from cl.store.old_names import renamed
from cl.streams.build import class_names

CLIP, MEMORY, NOTE = "clip", "memory.safetensors", "bundle.json"
_FIRST = ("method", "seed", "template", "classes", "memory")  # what version 0.1.0 noted


@dataclass(frozen=True)
class Bundle:
    """A method in eval mode, what it was built with, the classes it has learned, and the templates that ask about any other class."""

    method: Method
    config: MethodConfig
    seed: int
    template: tuple[str, ...]
    classes: tuple[ClassName, ...] = ()

    @property
    def beside(self) -> bool:
        """Whether it answers otherwise than its CLIP alone would: prompts, heads, statistics."""
        return self.method.folded() is None

    @torch.no_grad()
    def shares(
        self, images: Iterable[Image.Image], names: Sequence[str], template: Sequence[str] | None = None, none: bool = False
    ) -> Float[Tensor, "b k"]:
        """How sure it is of each name, rows of sum 1; a learned class is asked as it was learned, unless a template is given.

        With `none` the last column is the share of none of the names: 1 or 0.

        Raises:
            MethodError: with `none`, where the method cannot tell it.
        """
        known = {each.name: each for each in self.classes} if template is None else {}
        asked = [known.get(each.name, each) for each in class_names(names, template or self.template)]
        if not none:
            return self.method.classify(self._pixels(images), self.method.class_features(asked)).double().softmax(-1)
        return shares_or_none(self.method, asked, self._pixels(images))

    @torch.no_grad()
    def cosines(self, images: Iterable[Image.Image], texts: Sequence[str]) -> Float[Tensor, "b n"]:
        """The cosine of each image with each text."""
        tokens = self.method.tokens(texts)
        return (self.method.encode_image(self._pixels(images)) @ self.method.encode_text(tokens).T).double()

    def _pixels(self, images: Iterable[Image.Image]) -> Float[Tensor, "b 3 h w"]:
        transform = self.method.clip.transform()
        return torch.stack([transform(image) for image in images]).to(self.method.clip.device)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Fill an existing folder: `clip/` in open_clip's layout, `bundle.json`, and what lies beside the CLIP.

    What a method keeps only to learn on (exemplars, importances) stays behind: nothing of it is needed to answer.

    Raises:
        ModelError: the folder cannot be written.
    """
    (bundle.method.folded() or bundle.method.clip).save(folder / CLIP)
    files = contents(folder / CLIP)
    digest = None
    if bundle.beside:
        kept = {name: tensor for name, tensor in memory(bundle.method).items() if not name.startswith("clip.")}
        digest = write_tensors(kept, folder / MEMORY)
    note: dict[str, Any] = {"method": bundle.config.model_dump(mode="json"), "seed": bundle.seed, "template": list(bundle.template)}
    note |= {"classes": [{"name": each.name, "prompts": list(each.prompts)} for each in bundle.classes], "memory": digest, "clip": files}
    write_json(sealed(note), folder / NOTE)


def read_bundle(folder: Path) -> Bundle:
    """What `write_bundle` wrote; a method that its CLIP alone answers for comes back as that CLIP.

    Raises:
        StoreError: missing, damaged, or written by a method that is not known here.
        ModelError: the CLIP is damaged.
    """
    note = unsealed(read_json(folder / NOTE), str(folder / NOTE), _FIRST)
    if "clip" in note and contents(folder / CLIP) != note["clip"]:
        raise StoreError(f"{folder / CLIP}: damaged, it is not what was written; fetch it again, or register the model again")
    clip = load(ModelConfig(name=f"local-dir:{(folder / CLIP).resolve()}"))
    try:
        config: MethodConfig = TypeAdapter(AnyMethodConfig).validate_python(note["method"])
        classes = tuple(ClassName(each["name"], tuple(each["prompts"])) for each in note["classes"])
        seed, template, digest = int(note["seed"]), tuple(note["template"]), note["memory"]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder / NOTE}: not what this Evergreen writes ({str(error).splitlines()[0]})") from error
    if digest is None:
        method = CONFIGS["zero_shot"]().build(clip, seed)
    else:
        method = config.build(clip, seed)
        _remember(method, folder / MEMORY, digest)
    return Bundle(method.eval().requires_grad_(False), config, seed, template, classes)


def _remember(method: Method, path: Path, digest: str) -> None:
    tensors = read_tensors(path)
    if sha256(path) != digest:
        raise StoreError(f"{path}: damaged, it is not what was written; fetch it again")
    now = memory(method)
    restore(method, renamed(tensors, now) | {name: tensor for name, tensor in now.items() if name.startswith("clip.")}, str(path))
