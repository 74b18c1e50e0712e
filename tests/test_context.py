"""A longer context: what was short keeps its features to the bit, what was cut is read, and the model is a model like any other."""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from cl.config import TrainConfig
from cl.data.table import ImageTable
from cl.errors import ModelError
from cl.learning.learner import learn
from cl.methods import CONFIGS
from cl.methods.features import pixels
from cl.models.clip import Clip, ModelConfig, build, load
from cl.models.context import KEPT, longer, stretched
from cl.models.source import TINY
from tests import make
from tests.families import family


def waves(n: int, d: int) -> torch.Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(7 * i + 3 * j + i * j)


def test_the_published_positions_come_out() -> None:
    own, long = waves(77, 8), stretched(waves(77, 8), 248)
    assert long.shape == (248, 8) and torch.equal(long[: KEPT + 1], own[: KEPT + 1])
    assert long[21, :3].tolist() == pytest.approx([0.8874407501, -0.0220349149, -0.3966542862], abs=1e-10)
    assert long[247, :3].tolist() == pytest.approx([-1.2757991202, 1.8871580282, -2.0953027188], abs=1e-10)
    assert all(torch.equal(long[KEPT + 4 * step], own[KEPT + step]) for step in range(57))
    for at in range(KEPT, 248):  # linear between neighbours, and on beyond the last
        low = min(int(KEPT + (at - KEPT) / 4), 75)
        share = KEPT + (at - KEPT) / 4 - low
        assert (long[at] - (own[low] + share * (own[low + 1] - own[low]))).abs().max() < 1e-12
    assert torch.equal(stretched(own, 77), own)
    assert stretched(torch.zeros(77, 512), 248).numel() - 77 * 512 == 87_552  # what ViT-B/16 grows by


@pytest.fixture(scope="module")
def both() -> tuple[Clip, Clip]:
    return load(ModelConfig(name="tiny")), load(ModelConfig(name="tiny", context=248))


@torch.no_grad()
def test_texts_of_up_to_21_tokens_keep_their_features_to_the_bit_and_longer_ones_are_read_to_their_end(both: tuple[Clip, Clip]) -> None:
    short, long = both
    texts = ["red", "a photo of a dog", " ".join(["cat"] * 19)]
    assert torch.equal(short.tokenize(texts), long.tokenize(texts)) and short.tokenize(texts).shape[1] == 21
    assert torch.equal(short.encode_text(short.tokenize(texts)), long.encode_text(long.tokenize(texts)))
    assert not torch.equal(*(clip.encode_text(clip.tokenize([" ".join(["cat"] * 20)])) for clip in both))
    far = [" ".join(["cat"] * 100) + f" {end}" for end in ("dog", "bird")]
    cut, whole = (clip.encode_text(clip.tokenize(far)) for clip in both)
    assert torch.equal(cut[0], cut[1]) and not torch.allclose(whole[0], whole[1], atol=1e-6)
    assert long.context_length == 248 and long.tokenize(far).shape[1] == 103
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(short.encode_image(images), long.encode_image(images)) and torch.equal(short.scale(), long.scale())


@torch.no_grad()
def test_it_is_a_model_of_its_own_that_plain_open_clip_reads(both: tuple[Clip, Clip], tmp_path: Path) -> None:
    short, long = both
    assert long.digest() != short.digest() and (long.random, long.first_scale) == (short.random, short.first_scale)
    assert load(ModelConfig(name="tiny", context=77)).digest() == short.digest()
    long.save(tmp_path / "m")
    again = load(ModelConfig(name=f"local-dir:{tmp_path / 'm'}"))
    assert again.digest() == long.digest() and again.context_length == 248
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'm'}")
    tokens = torch.zeros(1, 248, dtype=torch.int64)
    told = long.tokenize([" ".join(["cat"] * 100)])
    tokens[:, : told.shape[1]] = told
    assert torch.allclose(plain.eval().encode_text(tokens, normalize=True), long.encode_text(told), atol=1e-6)
    assert load(ModelConfig(name=f"local-dir:{tmp_path / 'm'}", context=248)).digest() == long.digest()


@pytest.mark.slow
def test_a_session_of_long_captions_is_learned_and_its_state_is_that_models() -> None:
    session = make.session(1, (0, 1), (0, 1), captions=True, labels=False)
    method = CONFIGS["finetune"]().build(load(ModelConfig(name="tiny", context=248)), 0)
    learn(method, session, TrainConfig(max_steps=1, batch_size=8, device="cpu"), 0)
    assert method.state_dict()["clip.model.positional_embedding"].shape == (248, 32)


@pytest.mark.parametrize(
    "name", ["SigLIP", *(pytest.param(each, marks=pytest.mark.slow) for each in ("MobileCLIP", "CoCa", "HF text tower"))]
)
def test_towers_without_positions_of_their_own_are_refused_by_name(name: str, tmp_path: Path) -> None:
    family(name, tmp_path / "files").save(tmp_path / "m")
    with pytest.raises(ModelError, match=r"m: context 248 needs open_clip's causal text transformer"):
        load(ModelConfig(name=f"local-dir:{tmp_path / 'm'}", context=248))


def test_fewer_tokens_than_a_model_reads_are_refused_and_so_is_a_model_that_reads_next_to_none() -> None:
    with pytest.raises(ModelError, match=r"^tiny: context 50 is less than the 77 tokens that it reads; leave model.context out"):
        load(ModelConfig(name="tiny", context=50))
    with pytest.raises(ModelError, match=r"^small: context 99 cannot be had: it has 21 positions, of which the first 20 stay"):
        small = build(TINY | {"text_cfg": TINY["text_cfg"] | {"context_length": 21}})
        longer("small", small.model_cfg, small.model, 99)


def test_towers_that_can_be_stretched_in_other_families_are(tmp_path: Path) -> None:
    clip = family("EVA", tmp_path / "files")
    clip.save(tmp_path / "m")
    long = load(ModelConfig(name=f"local-dir:{tmp_path / 'm'}", context=48))
    with torch.no_grad():
        tokens = clip.tokenize(["a red square"])
        assert torch.equal(clip.encode_text(tokens), long.encode_text(tokens))


@pytest.mark.slow
def test_what_was_cut_is_learned_once_it_is_read(tmp_path: Path) -> None:
    settings = TINY | {"text_cfg": TINY["text_cfg"] | {"context_length": 24}}
    build(settings, seed=0).save(tmp_path / "m")
    rows = [(colour, image) for colour in range(8) for image in range(8)]
    told = [[" ".join(["word"] * 26) + f" {make.COLOURS[colour]}"] for colour, _ in rows]
    data = ImageTable.of([f"{row}" for row in rows], [make.png(*row) for row in rows], None, told)
    session = replace(make.session(1, (0,), (0,), captions=True, labels=False), data=data)
    accuracy = []
    for context in (None, 36):
        method = CONFIGS["finetune"]().build(load(ModelConfig(name=f"local-dir:{tmp_path / 'm'}", context=context)), 0)
        learn(method, session, TrainConfig(max_steps=120, batch_size=32, lr=1e-3, device="cpu"), 0)
        with torch.no_grad():
            texts = method.encode_text(method.tokens([told[8 * colour][0] for colour in range(8)]))
            right = (method.encode_image(torch.cat([*pixels(method.clip, data)])) @ texts.T).argmax(1)
        accuracy.append((right == torch.arange(8).repeat_interleave(8)).double().mean().item())
    assert accuracy[0] == 1 / 8 and accuracy[1] > 0.9
