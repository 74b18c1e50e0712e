"""The Hugging Face layout: `transformers` reads it and gives the same features, tokens and pixels; what does not fit is told."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cl.errors import ModelError
from cl.methods.presets.cpe_clip import CPEClipConfig
from cl.methods.presets.pseudolabel import PseudolabelConfig
from cl.models.clip import Clip, ModelConfig, TextPrompts, VisionPrompts, build, load
from cl.models.hugging_face import write
from tests import make

TEXTS = ["a photo of a cat", "GREEK SMALL LETTER ALPHA", "it's 42 déjà  vu!", "x" * 300]
VISION = {"image_size": 48, "patch_size": 16, "width": 64, "head_width": 16, "layers": 3, "mlp_ratio": 2.0}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
QUICK = {"embed_dim": 48, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}


def shaken(model_cfg: dict[str, Any]) -> Clip:
    """A random model whose biases and norms are not those of a new one, which hide mistakes."""
    clip = build(model_cfg, {"resize_mode": "shortest", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}, seed=3)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return clip


def stretched() -> Clip:
    """The shipped model with a longer context."""
    return load(ModelConfig(name="glyph_base", context=80))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: load(ModelConfig(name="glyph_base")), id="glyph_base"),
        pytest.param(lambda: shaken(QUICK), id="quick_gelu"),
        pytest.param(stretched, id="stretched", marks=pytest.mark.slow),
    ],
)
def test_transformers_gives_the_features_tokens_and_pixels_of_open_clip(made: Callable[[], Clip], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    clip = made()
    write(clip, tmp_path)
    model = transformers.CLIPModel.from_pretrained(tmp_path, dtype=torch.float32)
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (57, 91, 3)).astype(np.uint8))
    given = processor(text=TEXTS, images=image, padding=True, truncation=True, return_tensors="pt")
    own = open_clip.SimpleTokenizer(context_length=clip.context_length)(TEXTS)
    ends = (own == clip.eot).int().argmax(-1)
    for ids, mine, end in zip(given["input_ids"], own, ends, strict=True):
        assert torch.equal(ids[: end + 1], mine[: end + 1])
    pixels = clip.transform()(image)[None]
    step = 1 / 255 / min(clip.preprocess_cfg["std"])
    assert (given["pixel_values"] - pixels).abs().max() <= 2.01 * step  # it resizes with another library
    with torch.no_grad():
        images, texts = model.get_image_features(pixel_values=pixels), model.get_text_features(input_ids=given["input_ids"])
        for theirs, ours in ((images, clip.model.encode_image(pixels)), (texts, clip.model.encode_text(own))):
            features = getattr(theirs, "pooler_output", theirs)  # a tensor before version 5
            assert features.shape == ours.shape and (features - ours).abs().max() < 1e-5
    assert torch.equal(model.logit_scale, clip.logit_scale)
    assert len(features.unique(dim=0)) == len(TEXTS)  # a wrong end token makes them all alike


def read_back(clip: Clip, folder: Path) -> Any:
    write(clip, folder)
    return pytest.importorskip("transformers").CLIPModel.from_pretrained(folder, dtype=torch.float32)


def features_of(output: Any) -> torch.Tensor:
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)  # a tensor before version 5


def their_text(model: Any, tokens: torch.Tensor, layers: torch.Tensor) -> torch.Tensor:
    """Features of texts with prompts behind their start, by hooks: placeholder words, overwritten at each layer."""
    length, tower = layers.shape[1], model.text_model
    ids = torch.cat([tokens[:, :1], torch.full((len(tokens), length), 343), tokens[:, 1:]], 1)

    def put(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: torch.cat([x[:, :1], layers[layer].expand(len(x), -1, -1), x[:, 1 + length :]], 1)

    handles = [tower.embeddings.token_embedding.register_forward_hook(lambda _module, _args, out: put(0)(out))]
    return features_of(hooked(handles, tower, layers, put, lambda: model.get_text_features(input_ids=ids)))


def their_image(model: Any, pixels: torch.Tensor, layers: torch.Tensor, mode: str, place: str) -> torch.Tensor:
    """Features of images with prompts behind the patches or the class token, by hooks."""
    length, tower = layers.shape[1], model.vision_model
    start = 1 if place == "after_class" else 1 + tower.embeddings.num_patches

    def put(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        left, right = (start + layer * length,) * 2 if mode == "accumulate" else (start, start + length * bool(layer))
        return lambda x: torch.cat([x[:, :left], layers[layer].expand(len(x), -1, -1), x[:, right:]], 1)

    handles = [tower.pre_layrnorm.register_forward_pre_hook(lambda _module, args: (put(0)(args[0]),))]
    return features_of(hooked(handles, tower, layers, put, lambda: model.get_image_features(pixel_values=pixels)))


def hooked(
    handles: list[torch.utils.hooks.RemovableHandle],
    tower: Any,
    layers: torch.Tensor,
    put: Callable[[int], Callable[[torch.Tensor], torch.Tensor]],
    forward: Callable[[], Any],
) -> Any:
    """What `forward` gives when every layer after the first sees its own prompts."""

    def enter(layer: int) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
        return lambda _module, args: (put(layer)(args[0]), *args[1:])

    handles += [tower.encoder.layers[layer].register_forward_pre_hook(enter(layer)) for layer in range(1, len(layers))]
    try:
        return forward()
    finally:
        for handle in handles:
            handle.remove()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, layers: torch.Tensor) -> None:
    """The same features, and the same pull on the prompts."""
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-5
    direction = torch.linspace(-1, 1, ours.shape[1])
    mine, their = (torch.autograd.grad((features * direction).sum(), layers)[0] for features in (ours, theirs))
    assert (mine.abs().amax((1, 2)) > 1e-4).all() and torch.allclose(mine, their, rtol=1e-3, atol=1e-5)


def test_prompts_in_transformers_and_in_open_clip_are_the_same_to_rounding(tmp_path: Path) -> None:
    clip = shaken(QUICK)
    model = read_back(clip, tmp_path)
    tokens = clip.tokenize(TEXTS[:3])
    for depth, length in ((1, 1), (1, 16), (2, 2)):
        layers = drawn(depth, length, clip.text_width)
        assert_same(clip.encode_text(tokens, TextPrompts(layers)), their_text(model, tokens, layers), layers)
    pixels = drawn(2, 3, VISION["image_size"], VISION["image_size"]).detach()
    for (depth, length), mode, place in product(((1, 3), (2, 1), (3, 2)), ("accumulate", "replace"), ("after_patches", "after_class")):
        layers = drawn(depth, length, clip.image_width)
        ours = clip.encode_image(pixels, VisionPrompts(layers, mode, place))
        assert_same(ours, their_image(model, pixels, layers, mode, place), layers)


AFTER_CLASS = ("replace", "after_class")


@pytest.mark.parametrize(
    ("config", "template", "vision"),
    [
        (CPEClipConfig(), "{}.", ("accumulate", "after_patches")),
        (PseudolabelConfig(modality="text"), "{}", AFTER_CLASS),
        (PseudolabelConfig(modality="visual"), "a {} square", AFTER_CLASS),
        (PseudolabelConfig(modality="multimodal"), "{}", AFTER_CLASS),
    ],
    ids=["cpe_clip", "text", "visual", "multimodal"],
)
def test_methods_with_prompts_score_as_transformers_with_these_prompts(
    config: CPEClipConfig | PseudolabelConfig, template: str, vision: tuple[str, str], tmp_path: Path
) -> None:
    clip = shaken(QUICK)
    method = config.build(clip, 0)
    with torch.no_grad():
        for index, parameter in enumerate(method.trainable()):  # new prompts are small, which hides mistakes
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    model, classes = read_back(clip, tmp_path), make.names((0, 1, 2))
    tokens = clip.tokenize([template.format(known.name) for known in classes])
    pixels = drawn(2, 3, VISION["image_size"], VISION["image_size"]).detach()
    with torch.no_grad():
        prompts = method.tuner.prompts
        text, image = prompts.text(), prompts.vision()
        texts = their_text(model, tokens, torch.empty(1, 0, clip.text_width) if text is None else text.layers)
        images = their_image(model, pixels, torch.empty(1, 0, clip.image_width) if image is None else image.layers, *vision)
        cosines = method.classify(pixels, method.class_features(classes)) / (100 if isinstance(config, CPEClipConfig) else clip.scale())
    assert (cosines - images @ texts.T).abs().max() < 1e-5
    assert cosines.std(1).min() > 1e-3  # or all classes would be alike


def test_the_folder_holds_safetensors_json_and_text_and_nothing_else(tmp_path: Path) -> None:
    write(shaken(QUICK), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    tokenizer = {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"} | tokenizer
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["text_config"]["hidden_act"] == told["vision_config"]["hidden_act"] == "quick_gelu"
    assert (told["vision_config"]["num_attention_heads"], told["vision_config"]["intermediate_size"]) == (4, 128)


RESNET = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32, "patch_size": None}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"vision_cfg": RESNET}, "its image tower is a ModifiedResNet"),
        ({"vision_cfg": {"timm_model_name": "resnet10t", "image_size": 32}}, "its image tower is a TimmModel"),
        ({"custom_text": True}, "its text tower is not CLIP's causal transformer"),
        ({"text_cfg": TEXT | {"no_causal_mask": True}}, "its text tower is not CLIP's causal transformer"),
        ({"text_cfg": TEXT | {"vocab_size": 50000}}, "its tokenizer is not CLIP's own"),
        ({"vision_cfg": VISION | {"pool_type": "avg"}}, "pools or normalises in another way"),
        ({"vision_cfg": VISION | {"no_ln_pre": True}}, "pools or normalises in another way"),
        ({"vision_cfg": VISION | {"ls_init_value": 0.1}}, "it has visual.transformer.resblocks.0.ls_1.gamma"),
        ({"init_logit_bias": -10.0}, "it has logit_bias"),
    ],
)
def test_an_architecture_that_does_not_fit_is_told_in_one_sentence(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    clip = build(QUICK | changed, seed=0)
    with pytest.raises(ModelError, match="no Hugging Face layout") as caught:
        write(clip, tmp_path)
    assert told in str(caught.value) and not [*tmp_path.iterdir()]
