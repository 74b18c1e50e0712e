"""The recipe of the shipped model, on a small scale, and the shipped model itself."""

from importlib.resources import files
from pathlib import Path

import open_clip
import pytest
import torch

from cl.config import EvalConfig, TrainConfig
from cl.data.classes import ClassName
from cl.data.glyphs import TEST_FONTS, coverage, domains, name_of, render
from cl.data.table import ImageTable
from cl.models.clip import ModelConfig, load
from cl.pretrain import PretrainConfig, measure, pretrain, save_pretrained
from cl.streams.stream import EvalSet
from tests import make

RECIPE = PretrainConfig(domains=None, train=TrainConfig(max_steps=12, batch_size=8, lr=2e-3, warmup=0.1, device="cpu"))
BASE = Path(str(files("cl") / "assets" / "glyph_base"))


def colours() -> tuple[ImageTable, EvalSet]:
    test = EvalSet("colours", "classify", make.table((0, 1, 2, 3), 6, seed=9), make.names((0, 1, 2, 3)))
    return make.table((0, 1, 2, 3), 8, captions=True), test


def test_the_recipe_repeats_bit_for_bit_and_learns_what_the_captions_say() -> None:
    data, test = colours()
    one, two = pretrain(RECIPE, data, [test]), pretrain(RECIPE, data, [test])
    assert all(torch.equal(first, second) for first, second in zip(one.parameters(), two.parameters(), strict=True))
    assert measure(one, [test], EvalConfig())["colours"]["top1"] >= 0.75  # chance is 0.25


def test_only_the_chosen_domains_are_learned() -> None:
    data, test = colours()
    with pytest.raises(Exception, match="no training image"):
        pretrain(RECIPE.model_copy(update={"domains": ("latin",)}), data, [test])


def test_a_saved_model_is_the_same_to_half_precision_through_open_clip_too(tmp_path) -> None:
    data, test = colours()
    clip = pretrain(RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"max_steps": 2})}), data, [test])
    save_pretrained(clip, tmp_path / "model")
    tokens = clip.tokenize(["a red square", "blue"])
    ours = load(ModelConfig(name=f"local-dir:{tmp_path}/model"))
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/model")
    with torch.no_grad():
        expected = clip.encode_text(tokens)
        torch.testing.assert_close(ours.encode_text(tokens), expected, atol=2e-3, rtol=0)
        torch.testing.assert_close(theirs.eval().encode_text(make.padded(clip, tokens), normalize=True), ours.encode_text(tokens))


def test_the_shipped_model_reads_its_base_domains_in_fonts_it_has_not_seen() -> None:
    assert sum(file.stat().st_size for file in BASE.iterdir()) < 16e6
    where = domains()
    codes = [code for code in sorted(where) if where[code] in PretrainConfig().domains]
    covers = {font: set(codes_of) for font, codes_of in coverage().items() if font in TEST_FONTS}
    names = {name_of(code): ClassName(name_of(code), (name_of(code),)) for code in codes}
    rows = [(name_of(code), font, render(code, font)) for code in codes[::5] for font in sorted(covers) if code in covers[font]]
    rows = [row for row in rows if row[2]]
    table = ImageTable.of([f"{name} {font}" for name, font, _ in rows], [data for *_, data in rows], [name for name, *_ in rows])
    assert len(names) > 1000 and len(rows) > 300
    scores = measure(load(ModelConfig(name="glyph_base")), [EvalSet("base", "classify", table, tuple(names.values()))], EvalConfig())
    assert scores["base"]["top1"] >= 0.85  # 0.914 over all of them


def test_scripts_the_shipped_model_was_never_shown_are_at_chance() -> None:
    where = domains()
    codes = [code for code in sorted(where) if where[code] == "greek"]
    rows = [(name_of(code), render(code, "DejaVuSans-Oblique")) for code in codes]
    rows = [row for row in rows if row[1]]
    table = ImageTable.of([name for name, _ in rows], [data for _, data in rows], [name for name, _ in rows])
    classes = tuple(ClassName(name, (name,)) for name, _ in rows)
    scores = measure(load(ModelConfig(name="glyph_base")), [EvalSet("greek", "classify", table, classes)], EvalConfig())
    assert scores["greek"]["top1"] < 0.15
