import contextlib
import copy
import io
import json
import os
import time
import urllib.error
from functools import cache
from pathlib import Path

import httpx
import open_clip
import pytest
import tokenizers
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms as v1

import cl.models.source
from cl.errors import ModelError
from cl.models.clip import Clip, ModelConfig, TextPrompts, VisionPrompts, build, load
from cl.models.source import TINY, find
from tests.families import FAMILIES, family

TEXT, VISION = TINY["text_cfg"], TINY["vision_cfg"]
TOWERS = {
    "vit": TINY,
    "vit, pooled patches": TINY | {"vision_cfg": VISION | {"pool_type": "avg", "no_ln_pre": True}, "quick_gelu": True},
    "custom text": TINY | {"custom_text": True, "text_cfg": TEXT | {"proj_bias": True, "pool_type": "eos", "eos_id": 49407}},
    "resnet": TINY | {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}},
    "timm": TINY | {"vision_cfg": {"image_size": 64, "timm_model_name": "mobilenetv2_050", "timm_pool": "", "timm_proj": "linear"}},
    "bidirectional text": TINY | {"custom_text": True, "text_cfg": TEXT | {"no_causal_mask": True}},
    "text read at the last token": TINY | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "last"}},
    "coca": TINY
    | {
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"width": 32, "context_length": 77, "heads": 2, "layers": 1, "embed_cls": True},
    },
}
WITHOUT_PROMPTS = ("bidirectional text", "text read at the last token", "coca")
CAPTIONS = ["a cat", "a photograph of a small boat in a harbour", "two dogs"]


@cache
def clip_of(tower: str) -> Clip:
    clip = build(TOWERS[tower], seed=1)
    with torch.no_grad():  # batch norms and biases of a new model are the identity, which hides mistakes
        for parameter in clip.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return clip


def images_for(clip: Clip, count: int = 3) -> torch.Tensor:
    size = torch.Size(open_clip.transform.to_2tuple(clip.preprocess_cfg["size"]))
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def random_prompts(depth: int, length: int, width: int = 32) -> torch.Tensor:
    return torch.randn(depth, length, width, generator=torch.Generator().manual_seed(7)).requires_grad_()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) < 1e-6


# without prompts


@pytest.mark.parametrize("tower", TOWERS)
def test_without_prompts_features_are_open_clips_own(tower: str) -> None:
    clip = clip_of(tower)
    full = clip.tokenizer(CAPTIONS)
    with torch.no_grad():
        assert close(clip.encode_image(images_for(clip)), clip.model.encode_image(images_for(clip), normalize=True))
        assert close(clip.encode_text(full), clip.model.encode_text(full, normalize=True))
        assert close(clip.encode_text(clip.tokenize(CAPTIONS)), clip.model.encode_text(full, normalize=True))


@pytest.mark.parametrize("tower", ["vit", "custom text"])
def test_gradients_without_prompts_are_open_clips_own(tower: str) -> None:
    clip = clip_of(tower)
    weights = [parameter for name, parameter in clip.model.named_parameters() if "resblocks.0.mlp" in name and "visual" not in name]
    ours = torch.autograd.grad(clip.encode_text(clip.tokenize(CAPTIONS))[:, 0].sum(), weights)
    theirs = torch.autograd.grad(clip.model.encode_text(clip.tokenizer(CAPTIONS), normalize=True)[:, 0].sum(), weights)
    assert weights and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_texts_are_trimmed_to_the_longest_and_what_follows_the_end_does_not_matter() -> None:
    clip = clip_of("vit")
    tokens = clip.tokenize(CAPTIONS)
    assert tokens.shape == (3, 11)  # start, nine words, end
    assert tokens[1, -1] == clip.eot and (tokens[:, 0] == clip.sot).all()
    noisy = torch.cat([tokens, torch.randint(1, 400, (3, 20), generator=torch.Generator().manual_seed(1))], 1)
    noisy[0, 5:] = 300
    with torch.no_grad():
        assert close(clip.encode_text(noisy), clip.encode_text(tokens))
        assert close(clip.encode_text(tokens[:1, :4]), clip.encode_text(tokens[:1]))
        changed = tokens.clone()
        changed[:, 1] = 301
        assert not close(clip.encode_text(changed), clip.encode_text(tokens))


@pytest.mark.parametrize("tower", WITHOUT_PROMPTS)
def test_texts_are_not_trimmed_where_that_would_change_features(tower: str) -> None:
    assert clip_of(tower).tokenize(["a cat"]).shape == (1, 77)


def test_a_caption_over_the_context_loses_words_but_not_its_end() -> None:
    clip = clip_of("vit")
    tokens = clip.tokenize(["word " * 200])
    assert tokens.shape == (1, 77) and tokens[0, -1] == clip.eot and tokens[0, 0] == clip.sot
    assert clip.tokenize(["word " * 200], reserve=16).shape == (1, 61)


def test_no_caption_at_all_and_an_empty_caption_are_tokenized() -> None:
    clip = clip_of("vit")
    assert clip.tokenize([""]).tolist() == [[clip.sot, clip.eot]] == [[49406, 49407]]
    assert len(clip.tokenize([])) == 0


def test_features_are_fp32_and_of_length_one_under_autocast() -> None:
    clip = clip_of("vit")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for features in (
            clip.encode_image(images_for(clip), VisionPrompts(random_prompts(2, 2))),
            clip.encode_image(images_for(clip)),
            clip.encode_text(clip.tokenize(CAPTIONS), TextPrompts(random_prompts(2, 2))),
        ):
            assert features.dtype == torch.float32
            assert torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-6)


def test_the_scale_is_a_scalar_even_where_open_clip_keeps_it_as_a_vector() -> None:
    assert clip_of("vit").scale().item() == pytest.approx(1 / 0.07, rel=0.5)
    clip = build(TINY | {"nonscalar_logit_scale": True, "init_logit_scale": 2.0})
    assert clip.scale().shape == () and clip.scale().item() == pytest.approx(2.718281828**2)


# prompts: an independent implementation with hooks on an untouched open_clip model (spec: placeholders, then overwrite)


@contextlib.contextmanager
def hooks(*handles: torch.utils.hooks.RemovableHandle):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hooked_text(clip: Clip, tokens: torch.Tensor, prompts: torch.Tensor, mode: str) -> torch.Tensor:
    model = clip.model
    text = model if isinstance(model, open_clip.CLIP) else model.text
    depth, length, _ = prompts.shape
    placeholders = torch.full((len(tokens), length), 343)
    longer = nn.functional.pad(torch.cat([tokens[:, :1], placeholders, tokens[:, 1:]], 1), (0, 77))[:, :77]
    batch = prompts.detach().unsqueeze(1).expand(-1, len(tokens), -1, -1)

    def embed(_module, _args, out):
        return torch.cat([out[:, :1], batch[0], out[:, 1 + length :]], 1)

    def enter(layer):
        def hook(_module, args, kwargs):
            x = args[0]
            extra = x.shape[1] - 77
            if mode == "replace":
                x = torch.cat([x[:, :1], batch[layer], x[:, 1 + length :]], 1)
            elif mode == "accumulate":
                x = torch.cat([x[:, : 1 + length + extra], batch[layer], x[:, 1 + length + extra :]], 1)
            else:
                x = torch.cat([x[:, :1], *batch[: layer + 1], x[:, 1 + length + extra :]], 1)
            return (x,), kwargs

        return hook

    def grow_mask(_module, args, kwargs):
        size = args[0].shape[1]
        mask = torch.zeros(size, size).masked_fill(torch.ones(size, size).triu(1).bool(), float("-inf"))
        return args, kwargs | {"attn_mask": mask}

    def strip(_module, args):
        return (torch.cat([args[0][:, :1], args[0][:, args[0].shape[1] - 76 :]], 1),)

    blocks = text.transformer.resblocks
    handles = [text.token_embedding.register_forward_hook(embed), text.ln_final.register_forward_pre_hook(strip)]
    handles += [blocks[i].register_forward_pre_hook(enter(i), with_kwargs=True) for i in range(1, depth)]
    handles += [block.register_forward_pre_hook(grow_mask, with_kwargs=True) for block in blocks]
    with hooks(*handles), torch.no_grad():
        return model.encode_text(longer, normalize=True)


def hooked_image(clip: Clip, images: torch.Tensor, prompts: torch.Tensor, mode: str, place: str) -> torch.Tensor:
    visual = clip.model.visual
    depth, length, _ = prompts.shape
    batch = prompts.detach().unsqueeze(1).expand(-1, len(images), -1, -1)
    start = 1 if place == "after_class" else 17

    def enter(layer):
        def hook(_module, args):
            x = args[0]
            keep = 0 if mode == "replace" or layer == 0 else layer * length
            rest = x[:, start + (length if mode == "replace" and layer else keep) :]
            return (torch.cat([x[:, : start + keep], batch[layer], rest], 1),)

        return hook

    def strip(_module, args):
        inserted = args[0].shape[1] - 17
        return (torch.cat([args[0][:, :start], args[0][:, start + inserted :]], 1),)

    first = visual.transformer if isinstance(visual.ln_pre, nn.Identity) else visual.ln_pre
    handles = [first.register_forward_pre_hook(enter(0)), visual.ln_post.register_forward_pre_hook(strip)]
    handles += [visual.transformer.resblocks[i].register_forward_pre_hook(enter(i)) for i in range(1, depth)]
    with hooks(*handles), torch.no_grad():
        return clip.model.encode_image(images, normalize=True)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("mode", ["replace", "accumulate", "accumulate_same"])
@pytest.mark.parametrize("tower", ["vit", "custom text"])
def test_text_prompts_do_what_hooks_on_open_clip_do(tower: str, mode: str, depth: int, length: int) -> None:
    clip, prompts = clip_of(tower), random_prompts(depth, length)
    tokens = clip.tokenize(CAPTIONS)
    with torch.no_grad():
        ours = clip.encode_text(tokens, TextPrompts(prompts, mode))
        assert close(ours, hooked_text(clip, tokens, prompts, mode))
        assert not close(ours, clip.encode_text(tokens))


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("mode", ["accumulate", "replace"])
@pytest.mark.parametrize("place", ["after_patches", "after_class"])
@pytest.mark.parametrize("tower", ["vit", "vit, pooled patches"])
def test_image_prompts_do_what_hooks_on_open_clip_do(tower: str, place: str, mode: str, depth: int, length: int) -> None:
    clip, prompts = clip_of(tower), random_prompts(depth, length)
    images = images_for(clip, 2)
    with torch.no_grad():
        ours = clip.encode_image(images, VisionPrompts(prompts, mode, place))
        assert close(ours, hooked_image(clip, images, prompts, mode, place))
        assert not close(ours, clip.encode_image(images))


def test_token_counts_per_layer_follow_the_mode() -> None:
    clip, counts = clip_of("vit"), []
    blocks = [*clip.model.visual.transformer.resblocks, *clip.model.transformer.resblocks]
    handles = [block.register_forward_pre_hook(lambda _module, args: counts.append(args[0].shape[1])) for block in blocks]
    with hooks(*handles), torch.no_grad():
        clip.encode_image(images_for(clip), VisionPrompts(random_prompts(3, 2)))
        clip.encode_image(images_for(clip), VisionPrompts(random_prompts(3, 2), "replace"))
        clip.encode_text(clip.tokenize(["a cat"]), TextPrompts(random_prompts(3, 2)))
        clip.encode_text(clip.tokenize(["a cat"]), TextPrompts(random_prompts(3, 2), "accumulate"))
    assert counts == [19, 21, 23, 23] + [19] * 4 + [6] * 4 + [6, 8, 10, 10]


def test_prompts_of_zeros_are_still_attended_to() -> None:
    clip, tokens, zeros = clip_of("vit"), clip_of("vit").tokenize(CAPTIONS), torch.zeros(1, 2, 32)
    with torch.no_grad():
        assert not close(clip.encode_text(tokens, TextPrompts(zeros)), clip.encode_text(tokens))
        assert not close(clip.encode_image(images_for(clip), VisionPrompts(zeros)), clip.encode_image(images_for(clip)))


@pytest.mark.parametrize("mode", ["replace", "accumulate", "accumulate_same"])
def test_the_gradient_reaches_the_prompts_of_every_layer_in_both_towers(mode: str) -> None:
    clip, tokens = clip_of("vit"), clip_of("vit").tokenize(CAPTIONS)
    text = random_prompts(4, 2)
    clip.encode_text(tokens, TextPrompts(text, mode))[:, 0].sum().backward()
    for visual_mode in ("accumulate", "replace"):
        vision = random_prompts(4, 2)
        clip.encode_image(images_for(clip), VisionPrompts(vision, visual_mode))[:, 0].sum().backward()
        assert (vision.grad.abs().amax((1, 2)) > 1e-7).all()
    assert (text.grad.abs().amax((1, 2)) > 1e-7).all()
    clip.zero_grad()


def test_the_prompt_gradient_agrees_with_finite_differences() -> None:
    clip = copy.deepcopy(clip_of("vit")).double()
    tokens, images = clip.tokenize(CAPTIONS[:1]), images_for(clip, 1).double()
    prompts = 0.1 * random_prompts(2, 1).detach().double()
    prompts.requires_grad_()
    assert torch.autograd.gradcheck(lambda g: clip.encode_text(tokens, TextPrompts(g))[:, :3], prompts, atol=1e-5)
    assert torch.autograd.gradcheck(lambda g: clip.encode_image(images, VisionPrompts(g))[:, :3], prompts, atol=1e-5)


def test_prompted_captions_are_read_at_their_own_end_whatever_the_padding() -> None:
    clip, prompts = clip_of("vit"), TextPrompts(random_prompts(2, 3))
    tokens = clip.tokenize(CAPTIONS)
    with torch.no_grad():
        together = clip.encode_text(tokens, prompts)
        alone = torch.cat([clip.encode_text(clip.tokenize([caption]), prompts) for caption in CAPTIONS])
        assert close(together, alone)
        assert close(clip.encode_text(clip.tokenizer(CAPTIONS), prompts), together)  # 77 + 3 would not fit, so padding goes first
        assert not close(together[0], together[2])


def text_states(clip: Clip, tokens: torch.Tensor, prompts: TextPrompts) -> list[torch.Tensor]:
    """What leaves each layer of the text tower."""
    text, states = clip.model if isinstance(clip.model, open_clip.CLIP) else clip.model.text, []
    handles = [block.register_forward_hook(lambda _module, _args, out: states.append(out)) for block in text.transformer.resblocks]
    with hooks(*handles), torch.no_grad():
        clip.encode_text(tokens, prompts)
    return states


@pytest.mark.parametrize("word", [1, 2, 3])
@pytest.mark.parametrize("mode", ["replace", "accumulate", "accumulate_same"])
@pytest.mark.parametrize("tower", ["vit", "custom text"])
def test_another_word_reaches_neither_the_start_nor_the_prompts_nor_words_before_it_at_any_layer(tower: str, mode: str, word: int) -> None:
    clip, prompts = clip_of(tower), TextPrompts(random_prompts(3, 2), mode)
    tokens = clip.tokenize(["two small dogs"])
    edited = tokens.clone()
    edited[0, word] = 301
    then, now = text_states(clip, tokens, prompts), text_states(clip, edited, prompts)
    slots = [2, 2, 2, 2] if mode == "replace" else [2, 4, 6, 6]
    assert [state.shape[1] - tokens.shape[1] for state in then] == slots
    for before, after, inserted in zip(then, now, slots, strict=True):
        moved = (after - before)[0].abs().amax(-1) > 1e-6
        assert moved.tolist() == [False] * (inserted + word) + [True] * (tokens.shape[1] - word)


@pytest.mark.parametrize("mode", ["replace", "accumulate", "accumulate_same"])
@pytest.mark.parametrize("tower", ["vit", "custom text"])
def test_what_follows_the_end_of_a_prompted_caption_reaches_nothing_before_it_at_any_layer(tower: str, mode: str) -> None:
    clip, prompts = clip_of(tower), TextPrompts(random_prompts(3, 2), mode)
    tokens = clip.tokenize(["two small dogs"])
    noise = torch.randint(1, 400, (2, 20), generator=torch.Generator().manual_seed(1))  # fits, so that nothing is cut off
    padded, noisy = (torch.cat([tokens, rest[None]], 1) for rest in noise)
    for bare, before, after in zip(*(text_states(clip, each, prompts) for each in (tokens, padded, noisy)), strict=True):
        assert before.shape[1] == bare.shape[1] + 20
        moved = (after - before)[0].abs().amax(-1) > 1e-6
        assert moved.tolist() == [False] * bare.shape[1] + [True] * 20
        assert close(before[:, : bare.shape[1]], bare)
    with torch.no_grad():
        assert close(clip.encode_text(noisy, prompts), clip.encode_text(tokens, prompts))


def test_prompts_that_leave_no_room_for_the_caption_are_refused() -> None:
    clip, prompts = clip_of("vit"), TextPrompts(random_prompts(1, 16))
    long = "word " * 200
    with torch.no_grad():
        clip.encode_text(clip.tokenize([long], reserve=16), prompts)
    with pytest.raises(ModelError, match="77 tokens and 16 prompt tokens does not fit the context of 77"):
        clip.encode_text(clip.tokenize([long]), prompts)


@pytest.mark.parametrize("shape", [(5, 2, 32), (2, 2, 31), (2, 32), (0, 2, 32)])
def test_prompts_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    clip = clip_of("vit")
    with pytest.raises(ModelError, match=r"text prompts of shape .* expected \(1 to 4, length, 32\)"):
        clip.encode_text(clip.tokenize(["a"]), TextPrompts(torch.zeros(shape)))
    with pytest.raises(ModelError, match="image prompts of shape"):
        clip.encode_image(images_for(clip), VisionPrompts(torch.zeros(shape)))


@pytest.mark.parametrize("tower", ["resnet", "timm"])
def test_a_tower_without_tokens_refuses_image_prompts_and_takes_text_prompts(tower: str) -> None:
    clip = clip_of(tower)
    with pytest.raises(ModelError, match="no token sequence"):
        clip.encode_image(images_for(clip), VisionPrompts(torch.zeros(1, 1, 32)))
    with pytest.raises(ModelError, match="no token sequence"):
        _ = clip.image_width
    assert clip.encode_text(clip.tokenize(["a"]), TextPrompts(torch.zeros(1, 1, 32))).shape == (1, 32)


@pytest.mark.parametrize("tower", WITHOUT_PROMPTS)
def test_a_text_tower_that_is_not_causal_refuses_prompts(tower: str) -> None:
    clip = clip_of(tower)
    with pytest.raises(ModelError, match="causal text transformer"):
        clip.encode_text(clip.tokenize(["a"]), TextPrompts(torch.zeros(1, 1, 32)))


def test_the_model_says_its_sizes() -> None:
    clip = build(TINY | {"text_cfg": TEXT | {"width": 16, "layers": 5, "context_length": 20}})
    assert (clip.image_width, clip.image_layers, clip.text_width, clip.text_layers) == (32, 4, 16, 5)
    assert (clip.vocab_size, clip.context_length, clip.sot, clip.eot) == (49408, 20, 49406, 49407)


# modes, parts, pixels


@pytest.mark.parametrize("tower", ["resnet", "timm"])
def test_training_leaves_batch_norm_statistics_alone(tower: str) -> None:
    clip = copy.deepcopy(clip_of(tower))
    before = {name: buffer.clone() for name, buffer in clip.named_buffers()}
    with torch.no_grad():
        expected = clip.eval().encode_image(images_for(clip))
        nn.Sequential(clip).train()  # as a trainer does, from outside
        assert clip.training and clip.model.training
        assert torch.equal(clip.encode_image(images_for(clip)), expected)
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in clip.named_buffers())


@pytest.mark.parametrize("name", FAMILIES)
def test_only_mobilenets_are_laid_out_channels_last(name: str, tmp_path: Path) -> None:
    # a 1 x 1 convolution with a stride over three channels writes past its memory in that layout: MobileCLIP's stem is one
    assert not last(family(name, tmp_path))
    assert last(clip_of("timm"))


def last(clip: Clip) -> list[str]:
    weights = {name: weight for name, weight in clip.named_parameters() if weight.ndim == 4 and min(weight.shape[1:3]) > 1}
    return [name for name, weight in weights.items() if not weight.is_contiguous()]


@pytest.mark.slow
def test_a_mobileclip_of_the_usual_size_survives_its_steps() -> None:
    vision = {"image_size": 256, "timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None}
    clip = build(TINY | {"vision_cfg": vision, "custom_text": True}).train()
    for _ in range(2):
        clip.encode_image(torch.rand(8, 3, 256, 256)).square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in clip.parameters())


def test_patch_dropout_follows_the_mode_and_spares_prompts() -> None:
    clip = build(TINY | {"vision_cfg": VISION | {"patch_dropout": 0.5}})
    prompts, counts = VisionPrompts(random_prompts(1, 3)), []
    last = clip.model.visual.transformer.resblocks[-1]
    with torch.no_grad(), hooks(last.register_forward_pre_hook(lambda _module, args: counts.append(args[0].shape[1]))):
        clip.eval().encode_image(images_for(clip), prompts)
        clip.train().encode_image(images_for(clip), prompts)
    assert counts == [1 + 16 + 3, 1 + 8 + 3]


def test_the_towers_and_the_scale_make_up_the_model() -> None:
    clip = clip_of("vit")
    image, text, whole = ({id(parameter) for parameter in clip.part(part)} for part in ("image", "text", "whole"))
    assert image & text == {id(clip.logit_scale)}
    assert image | text == whole == {id(parameter) for parameter in clip.parameters()}


def picture(width: int = 90) -> Image.Image:
    image = Image.linear_gradient("L").rotate(90).resize((width, 60)).convert("RGB")  # dark on one side, light on the other
    image.paste((255, 0, 0), (0, 0, 5, 60))
    return image


def test_pixels_are_open_clips_preprocessing() -> None:
    cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}
    ours = build(TINY, cfg).transform()(picture())
    assert torch.equal(ours, image_transform_v2(PreprocessCfg(size=32, **cfg), is_train=False)(picture()))
    assert ours.shape == (3, 32, 32)
    assert build(TINY, cfg).transform()(picture().convert("L")).shape == (3, 32, 32)


def test_a_crop_repeats_with_its_seed_keeps_nearly_all_and_never_mirrors() -> None:
    augment, plain = clip_of("vit").transform(augment=True), clip_of("vit").transform()(picture(60))
    crops = []
    for seed in range(20):
        torch.manual_seed(seed)
        crops.append(augment(picture(60)))
        torch.manual_seed(seed)
        assert torch.equal(augment(picture(60)), crops[-1])
        assert (crops[-1] - plain).abs().mean() < 0.2 < (crops[-1].flip(-1) - plain).abs().mean()
    assert len({float(crop.sum()) for crop in crops}) > 4


def test_crop_and_mirror_is_the_authors_resize_random_crop_and_flip_at_the_models_size() -> None:
    cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    big = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 224}}
    own = build(big, cfg).transform("crop_and_mirror")
    bicubic = v1.InterpolationMode.BICUBIC
    authors = v1.Compose(
        [v1.Resize(256, bicubic), v1.RandomCrop(224), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(cfg["mean"], cfg["std"])]
    )
    mirrored = 0
    for seed in range(12):
        crops = []
        for transform in (own, authors):
            torch.manual_seed(seed)
            crops.append(transform(picture()))
        assert torch.equal(*crops) and crops[0].shape == (3, 224, 224)
        mirrored += int(crops[0][:, :, :40].mean() > crops[0][:, :, -40:].mean())
    assert 2 <= mirrored <= 10


# to disk and back


def test_a_saved_model_comes_back_bit_for_bit_here_and_in_plain_open_clip(tmp_path: Path) -> None:
    cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "longest", "fill_color": 3}
    clip = build(TOWERS["custom text"], cfg, seed=3)
    clip.save(tmp_path / "new" / "model")
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]
    back = load(ModelConfig(name=f"local-dir:{tmp_path}/new/model"))
    assert back.digest() == clip.digest()
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in clip.state_dict().items())
    assert torch.equal(back.transform()(picture()), clip.transform()(picture()))
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/new/model")
    plain.eval()
    with torch.no_grad():
        features = plain.encode_image(preprocess(picture())[None], normalize=True)
        assert torch.equal(features, clip.encode_image(clip.transform()(picture())[None]))


@pytest.mark.parametrize("tower", ["resnet", "timm", "vit"])
def test_every_tower_survives_the_disk_and_half_precision_loads_as_fp32(tower: str, tmp_path: Path) -> None:
    clip = clip_of(tower)
    clip.save(tmp_path, dtype=torch.float16)
    stored = load_file(tmp_path / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    back = load(ModelConfig(name=f"local-dir:{tmp_path}"))
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32} and not back.training
    with torch.no_grad():
        assert torch.allclose(back.encode_image(images_for(clip)), clip.encode_image(images_for(clip)), atol=5e-3)


def test_saving_over_a_model_replaces_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    build(TINY, seed=1).save(tmp_path / "model")
    second = build(TINY, seed=2)
    second.save(tmp_path / "model")
    assert load(ModelConfig(name="local-dir:model"), root=tmp_path).digest() == second.digest()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_that_stops_half_way_leaves_no_folder_that_loads_as_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(TINY, seed=1).save(tmp_path / "model")
    moved, move = [], os.replace

    def stop(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 2:
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr("cl.models.clip.os.replace", stop)
    with pytest.raises(ModelError, match="cannot be written \\(No space left on device\\)"):
        build(TINY, seed=2).save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
        load(ModelConfig(name=f"local-dir:{tmp_path}/model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_cannot_be_saved_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ModelError, match="taken: the model cannot be written"):
        clip_of("vit").save(tmp_path / "taken")


def test_the_digest_changes_with_weights_and_settings_and_nothing_else() -> None:
    clip = build(TINY, seed=1)
    digest = clip.digest()
    assert len(digest) == 32 and digest == clip.train().digest() == copy.deepcopy(clip).digest() == build(TINY, seed=1).digest()
    others = [build(TINY, seed=2), build(TINY | {"quick_gelu": True}, seed=1), build(TINY, {"resize_mode": "squash"}, seed=1)]
    with torch.no_grad():
        clip.logit_scale.add_(1e-6)
    assert len({digest, clip.digest(), *(other.digest() for other in others)}) == 5


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = (load(ModelConfig(name="tiny", seed=seed)).digest() for seed in (0, 0, 1))
    assert a == b != c and torch.equal(torch.rand(1), expected)


def test_building_a_model_leaves_the_given_settings_as_they_were() -> None:
    small = {"width": 16, "heads": 1, "layers": 1}
    settings = {"embed_dim": 8, "custom_text": True, "vision_cfg": VISION | {"layers": 1}, "text_cfg": small}
    before = copy.deepcopy(settings)
    assert build(settings).model_cfg == settings == before


def test_the_tiny_model_is_small_beyond_its_vocabulary() -> None:
    clip = load(ModelConfig(name="tiny"))
    assert sum(parameter.numel() for name, parameter in clip.named_parameters() if "token_embedding" not in name) < 150_000
    assert clip.image_layers >= 4 and clip.text_layers >= 4


def test_a_hugging_face_text_tower_keeps_its_tokenizer_through_the_disk(tmp_path: Path) -> None:
    words = {word: index for index, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat", "dog"])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", bos_token="[CLS]")
    bert = transformers.BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    bert.save_pretrained(tmp_path / "tower")
    fast.save_pretrained(tmp_path / "tower")
    text = {"hf_model_name": str(tmp_path / "tower"), "hf_tokenizer_name": str(tmp_path / "tower"), "context_length": 6}
    clip = build(TINY | {"text_cfg": text | {"hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"}})
    tokens = clip.tokenize(["a cat", "a dog"])
    assert tokens.tolist() == [[4, 5, 0, 0, 0, 0], [4, 6, 0, 0, 0, 0]] and clip.sot == 1
    with pytest.raises(ModelError, match="has no eos_token_id"):
        _ = clip.eot
    with pytest.raises(ModelError, match="causal text transformer"):
        clip.encode_text(tokens, TextPrompts(torch.zeros(1, 1, 16)))
    clip.save(tmp_path / "saved")
    for path in (tmp_path / "tower").glob("token*"):
        path.unlink()
    back = load(ModelConfig(name=f"local-dir:{tmp_path}/saved"))
    with torch.no_grad():
        assert torch.equal(back.encode_text(back.tokenize(["a cat", "a dog"])), clip.model.encode_text(tokens, normalize=True))


# finding a model


def test_a_relative_folder_starts_at_the_working_directory_or_the_given_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_of("vit").save(tmp_path / "model")
    assert load(ModelConfig(name="local-dir:./model"), root=tmp_path).digest() == clip_of("vit").digest()
    monkeypatch.chdir(tmp_path)
    assert load(ModelConfig(name="local-dir:model")).digest() == clip_of("vit").digest()


def test_a_weights_file_may_be_given_apart_from_the_settings(tmp_path: Path) -> None:
    clip = build(TINY, seed=9)
    clip.save(tmp_path)
    given = ModelConfig(name="tiny", pretrained=str(tmp_path / "open_clip_model.safetensors"))
    assert load(given).digest() == clip.digest()


def test_a_weights_file_given_apart_must_be_safetensors_too(tmp_path: Path) -> None:
    torch.save(clip_of("vit").model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"the path of a \.safetensors file"):
        load(ModelConfig(name="tiny", pretrained="weights.pt"), root=tmp_path)


def test_an_open_clip_name_with_random_weights_is_built_as_open_clip_has_it() -> None:
    clip = load(ModelConfig(name="ViT-S-32-alt", pretrained="random"))
    assert clip.preprocess_cfg["size"] == (224, 224) and clip.context_length == 77
    assert (clip.image_width, clip.image_layers, clip.text_width, clip.text_layers) == (384, 12, 256, 10)


@pytest.mark.parametrize(
    ("name", "pretrained", "told"),
    [
        ("Vit-b-32", None, "'Vit-b-32' is not known; did you mean .*ViT-B-32.*expected glyph_base, tiny, local-dir:PATH"),
        ("xyzzy", None, "'xyzzy' is not known; expected"),
        ("local-dir:", None, "is not known"),
        ("ViT-B-32", None, "needs weights: set pretrained to one of openai, .*random"),
        ("ViT-B-32", "opnai", "pretrained 'opnai' is not known; expected one of openai, "),
        ("tiny", "weights.bin", "the path of a .safetensors file"),
        ("hf-hub:a/b/c/d", None, "'a/b/c/d' is no repository name"),
    ],
)
def test_a_name_or_tag_that_does_not_exist_is_told_with_what_does(name: str, pretrained: str | None, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        load(ModelConfig(name=name, pretrained=pretrained))


BROKEN = {
    "not json": "{",
    "no model_cfg": "[]",
    "unknown setting": json.dumps({"model_cfg": TINY | {"text_cfg": TEXT | {"depth": 3}}}),
    "half a config": json.dumps({"model_cfg": {"embed_dim": 3}}),
    "unknown timm tower": json.dumps({"model_cfg": TINY | {"vision_cfg": {"timm_model_name": "no_such_net", "image_size": 32}}}),
    "bad preprocessing": json.dumps({"model_cfg": TINY, "preprocess_cfg": {"resize_mode": "fold"}}),
    "other model": json.dumps({"model_cfg": TINY | {"embed_dim": 16}}),
}


def break_folder(folder: Path, kind: str) -> None:
    config, weights = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
    if kind in BROKEN:
        config.write_text(BROKEN[kind])
    elif kind == "no config":
        config.unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "cut short":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "pickle":
        weights.unlink()
        torch.save({}, folder / "open_clip_pytorch_model.bin")
    elif kind == "pickle inside":
        torch.save({}, weights)
    elif kind == "tensor missing":
        tensors = load_file(weights)
        del tensors["ln_final.weight"]
        save_file(tensors, weights)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no config", "has no open_clip_config.json; expected the open_clip layout"),
        ("not json", "not readable as JSON"),
        ("no model_cfg", "no model_cfg"),
        ("unknown setting", r"text_cfg\.depth is not a setting of a model's shape"),
        ("half a config", "model_cfg.vision_cfg is None, expected a group of settings"),
        ("unknown timm tower", "cannot build this model .*no_such_net"),
        ("bad preprocessing", "cannot build this model"),
        ("no weights", "has no weights; expected open_clip_model.safetensors"),
        ("cut short", "damaged or cut short"),
        ("pickle", "has open_clip_pytorch_model.bin; expected open_clip_model.safetensors .*pickle can run code"),
        ("pickle inside", "damaged or cut short"),
        ("other model", "does not fit the model .*size mismatch"),
        ("tensor missing", "does not fit the model .*Missing key.*ln_final.weight"),
    ],
)
def test_a_folder_that_is_no_model_is_told_in_one_sentence(kind: str, told: str, tmp_path: Path) -> None:
    clip_of("vit").save(tmp_path)
    break_folder(tmp_path, kind)
    with pytest.raises(ModelError, match=told) as caught:
        load(ModelConfig(name=f"local-dir:{tmp_path}"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*nowhere"):
        load(ModelConfig(name="local-dir:nowhere"), root=tmp_path)


# the hub, which no test reaches


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(cl.models.source.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(cl.models.source.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(cl.models.source.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [("ViT-B-32", "openai"), ("hf-hub:org/model", None), ("roberta-ViT-B-32", "random"), ("ViT-B-16-SigLIP", "random")],
)
def test_without_a_network_a_download_is_given_up_at_once(name: str, pretrained: str | None, offline: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"is not in the local cache and .* cannot be reached .*local-dir:PATH"):
        load(ModelConfig(name=name, pretrained=pretrained))
    assert time.monotonic() - start < 5


def test_offline_mode_is_named_as_the_reason(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl.models.source.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set; unset it"):
        load(ModelConfig(name="hf-hub:org/model"))


def test_a_hub_model_in_the_cache_needs_no_network(offline: Path) -> None:
    snapshot = offline / "models--org--model" / "snapshots" / "abc"
    clip_of("vit").save(snapshot)
    (offline / "models--org--model" / "refs").mkdir()
    (offline / "models--org--model" / "refs" / "main").write_text("abc")
    assert load(ModelConfig(name="hf-hub:org/model")).digest() == clip_of("vit").digest()


def test_files_are_asked_of_the_hub_safetensors_first(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_of("vit").save(tmp_path / "served")
    asked = []

    def serve(repo: str, name: str) -> str:
        asked.append((repo, name))
        if name.endswith(".safetensors"):
            raise RemoteEntryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))
        torch.save(clip_of("vit").model.state_dict(), tmp_path / "served" / "open_clip_pytorch_model.bin")
        return str(tmp_path / "served" / name)

    def not_found(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.HTTPError("", 405, "Method Not Allowed", None, None)

    monkeypatch.setattr(cl.models.source.urllib.request, "urlopen", not_found)
    monkeypatch.setattr(cl.models.source, "hf_hub_download", serve)
    assert load(ModelConfig(name="hf-hub:org/model")).digest() == clip_of("vit").digest()
    assert [name for _, name in asked] == ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


def test_a_network_that_goes_away_half_way_is_not_taken_for_a_missing_file(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(repo: str, name: str) -> str:
        raise LocalEntryNotFoundError("connection reset")

    monkeypatch.setattr(cl.models.source.urllib.request, "urlopen", lambda *_args, **_kwargs: io.BytesIO())
    monkeypatch.setattr(cl.models.source, "hf_hub_download", lose)
    with pytest.raises(ModelError, match=r"cannot be downloaded \(connection reset\)"):
        load(ModelConfig(name="hf-hub:org/model"))


def test_a_pickle_from_the_hub_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="does not fit the model"):
        cl.models.source.fill(clip_of("vit").model, tmp_path / "open_clip_pytorch_model.bin")
    assert not (tmp_path / "ran").exists()


def test_a_tag_decides_the_activation_its_weights_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl.models.source, "download", lambda repo, names, asked: Path(names[0]))
    openai, laion = find("ViT-B-32", "openai"), find("ViT-B/32", "laion2b_s34b_b79k")
    assert openai.model_cfg["quick_gelu"] is True and laion.model_cfg["quick_gelu"] is False
    assert openai.weights == laion.weights == Path("open_clip_model.safetensors")
    assert find("ViT-B-16-SigLIP", "webli").preprocess_cfg["mean"] == (0.5, 0.5, 0.5)
