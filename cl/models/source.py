"""Where a model comes from: its configuration and its weights file, found by name."""

import difflib
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from torch import nn

from cl.config import Config
from cl.errors import ModelError
from cl.models.settings import check, check_code

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
RANDOM = "random"
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 4},
}
_REACH_SECONDS = 10


class ModelConfig(Config):
    """Which model, and its weights."""

    name: str = Field("glyph_base", description="glyph_base, tiny, local-dir:PATH, hf-hub:ORG/REPO or an open_clip name such as ViT-B-32")
    pretrained: str | None = Field(None, description="an open_clip tag, `random`, or the path of a safetensors file")
    seed: int = Field(0, description="for random weights")
    context: PositiveInt | None = Field(
        None, le=10_000, description="tokens of a text, such as 248: its own positions stretched; default: its own"
    )


class Source(NamedTuple):
    """A model before it is built: open_clip's two groups of settings, the weights (None: random) and its folder, if any."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: Path | None
    home: Path | None = None


def find(name: str, pretrained: str | None, root: Path | None = None) -> Source:
    """The parts of the model called `name`; relative folders are looked up below `root` (default: the working directory).

    Raises:
        ModelError: no such model or weights, or they would have to be downloaded and the hub cannot be reached.
    """
    kind, _, rest = name.partition(":")
    if name == "tiny":
        source = Source(TINY, {}, None)
    elif name == "glyph_base":
        source = _folder(Path(str(files("cl") / "assets" / "glyph_base")), name)
    elif kind == "local-dir" and rest:
        source = _folder((root or Path.cwd()) / Path(rest).expanduser(), name)
    elif kind == "hf-hub" and rest:
        config = _config(download(rest, [CONFIG], name), name)
        source = Source(*config, download(rest, [WEIGHTS, "open_clip_pytorch_model.bin"], name))
    else:
        return _architecture(name, pretrained, root)
    if pretrained is None:
        return source
    return source._replace(weights=None if pretrained == RANDOM else _given(pretrained, name, root))


def _architecture(name: str, pretrained: str | None, root: Path | None) -> Source:
    known = name.replace("/", "-")
    model_cfg = open_clip.get_model_config(known) if ":" not in name else None
    if model_cfg is None:
        close = difflib.get_close_matches(known.lower(), [model.lower() for model in open_clip.list_models()], 3)
        near = [model for model in open_clip.list_models() if model.lower() in close]
        meant = f"did you mean {', '.join(near)}? " if near else ""
        forms = "glyph_base, tiny, local-dir:PATH, hf-hub:ORG/REPO or an open_clip name"
        raise ModelError(f"model {name!r} is not known; {meant}expected {forms}")
    tags = open_clip.list_pretrained_tags_by_model(known)
    if pretrained is None:
        raise ModelError(f"model {name!r} needs weights: set pretrained to one of {', '.join([*tags, RANDOM])}, or to a safetensors file")
    if pretrained == RANDOM:
        return Source(model_cfg, {}, None)
    tag = open_clip.get_pretrained_cfg(known, pretrained)
    if not tag:
        return Source(model_cfg, {}, _given(pretrained, name, root, tags))
    repo, _, file = tag["hf_hub"].rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    safe = [WEIGHTS] if file == "open_clip_pytorch_model.bin" else [str(Path(file).with_suffix(".safetensors"))]
    # the weights decide the activation: OpenAI's were trained with QuickGELU, which plain ViT-B-32 does not have
    model_cfg["quick_gelu"] = bool(tag.get("quick_gelu", model_cfg.get("quick_gelu", False)))
    return Source(model_cfg, dict(tag), download(repo, [*safe, file], f"{name} ({pretrained})"))


def _given(pretrained: str, name: str, root: Path | None, tags: Sequence[str] = ()) -> Path:
    path = (root or Path.cwd()) / Path(pretrained).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return path
    choice = f"one of {', '.join([*tags, RANDOM])}, or " if tags else ""
    raise ModelError(f"model {name!r}: pretrained {pretrained!r} is not known; expected {choice}the path of a .safetensors file")


def _folder(folder: Path, name: str) -> Source:
    if not folder.is_dir():
        raise ModelError(f"{name}: there is no folder {folder}; give the path of one with {CONFIG} and {WEIGHTS}")
    config = _config(folder / CONFIG, name)
    safe = sorted(folder.glob("*.safetensors"))
    if (folder / WEIGHTS) in safe or len(safe) == 1:
        return Source(*config, folder / WEIGHTS if (folder / WEIGHTS) in safe else safe[0], folder)
    others = ", ".join(path.name for path in sorted(folder.iterdir()) if path.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
    why = "weights are read from safetensors only, as a pickle can run code"
    raise ModelError(f"{name}: {folder} has {others or 'no weights'}; expected {WEIGHTS} ({why})")


def _config(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{name}: {path.parent} has no {CONFIG}; expected the open_clip layout ({CONFIG} and {WEIGHTS})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); write the model again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{path}: no model_cfg; expected {{'model_cfg': ..., 'preprocess_cfg': ...}} as open_clip writes it")
    try:
        check(config["model_cfg"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return config["model_cfg"], config.get("preprocess_cfg") or {}


def download(repo: str, names: Sequence[str], asked: str) -> Path:
    """The first of the files that the hub has; one in the local cache is taken without asking the hub.

    Raises:
        ModelError: the hub cannot be reached, has no such repository, or none of the files.
    """
    try:
        cached = [path for path in (try_to_load_from_cache(repo, name) for name in names) if isinstance(path, str)]
    except ValueError as error:
        raise ModelError(f"{asked}: {repo!r} is no repository name; expected hf-hub:ORG/REPO") from error
    if cached:
        return Path(cached[0])
    wanted = f"{asked}: {names[0]} of {repo} is not in the local cache and"
    offline = "connect to it once, or use a model you have with local-dir:PATH"
    try:
        # one quick request first: the hub's own client tries six times per file before it gives up
        if constants.HF_HUB_OFFLINE:
            raise ModelError(f"{wanted} HF_HUB_OFFLINE is set; unset it and {offline}")
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_REACH_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # an answer, if not a friendly one: the hub is there
    except OSError as error:
        raise ModelError(f"{wanted} {constants.ENDPOINT} cannot be reached ({error}); {offline}") from None
    for name in names:
        try:
            return Path(hf_hub_download(repo, name))
        except RemoteEntryNotFoundError:  # its local namesake means that the network went away
            continue
        except Exception as error:  # the hub's client raises httpx, OS and own errors
            raise ModelError(f"{wanted} cannot be downloaded ({first_line(error)}); check the name, or {offline}") from error
    raise ModelError(f"{wanted} the repository has none of {', '.join(names)}; it holds no open_clip model")


def reach_towers(source: Source, name: str) -> None:
    """Make sure at once that what a Hugging Face text tower or tokenizer reads while it is built is within reach.

    Raises:
        ModelError: neither in the local cache nor on a hub that answers.
    """
    text = source.model_cfg.get("text_cfg", {})
    tower, tokenizer = text.get("hf_model_name"), text.get("hf_tokenizer_name")
    if tower:
        check_code(Path(tower) / "config.json" if Path(tower).is_dir() else download(tower, ["config.json"], name))
    if tokenizer and source.home is None and not Path(tokenizer).is_dir():
        download(tokenizer, ["tokenizer_config.json", "tokenizer.json"], name)


def fill(model: nn.Module, weights: Path) -> None:
    """Put a weights file into a model, as fp32 whatever the file's type; all names must fit.

    Raises:
        ModelError: damaged, or written for another model.
    """
    try:
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"{weights}: damaged or cut short, not a safetensors file ({error}); copy or download it again") from error
    except Exception as error:  # strict loading, position resizing and the unpickler each have kinds of their own
        raise ModelError(f"{weights}: does not fit the model ({first_line(error)}); it belongs to another configuration") from error


def first_line(error: Exception) -> str:
    """What an error says, without the paragraphs below it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # a strict load says "Error(s) in loading state_dict for CLIP:" first and what is wrong second
    text = lines[1] if len(lines) > 1 and lines[0].endswith(":") else (lines or [type(error).__name__])[0]
    return text if len(text) <= 200 else text[:197] + "..."
