"""The Hugging Face layout: `transformers` reads it and gives the same features, tokens and pixels; what does not fit is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cl.clip import Clip, ModelConfig, build, load
from cl.errors import ModelError
from cl.hugging_face import write

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


@pytest.mark.parametrize("make", [lambda: load(ModelConfig(name="glyph_base")), lambda: shaken(QUICK)], ids=["glyph_base", "quick_gelu"])
def test_transformers_gives_the_features_tokens_and_pixels_of_open_clip(make: Callable[[], Clip], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    clip = make()
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
