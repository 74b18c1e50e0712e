"""REAL-Prompt: classes are asked by another name, given or counted in captions."""

import string
from pathlib import Path

import pytest
import torch

from cl.data.classes import ClassName
from cl.data.glyphs import render
from cl.data.images import decode
from cl.errors import ConfigError, DataError
from cl.models.clip import ModelConfig, load
from cl.models.zero_shot import class_features
from cl.run_config import parse_config
from cl.streams.arrivals import Arrivals
from cl.streams.build import build_stream, class_names
from cl.streams.config import StreamConfig
from cl.streams.outline import stream_of
from tests.make import png


def folder(root: Path) -> Path:
    """Pictures of two classes, and a table of captions beside them."""
    for split, each in (("train", 3), ("test", 2)):
        for number, name in enumerate(("cobwebbed", "polar_bear")):
            (root / "pets" / split / name).mkdir(parents=True)
            for row in range(each):
                (root / "pets" / split / name / f"{row}.png").write_bytes(png(number, row + 10 * each))
    (root / "words").mkdir()
    for row, text in enumerate(("a Spider Web.", "the spider web of a spider", "spider webs", "cobwebbed", "an ice bear", "polar bear")):
        (root / "words" / f"{row}.png").write_bytes(png(3, row))
        (root / "words" / f"{row}.txt").write_text(text)
    return root


def stream(**settings: object) -> StreamConfig:
    given = {"kind": "classes", "sources": {"pets": "pets"}, "increment": 1, "template": "a {}", **settings}
    return parse_config({"name": "x", "stream": given}, "here").stream


def prompts(config: StreamConfig, root: Path) -> dict[str, str]:
    return {known.name: known.prompts[0] for known in build_stream(config, root).sessions[-1].vocabulary}


def test_a_class_is_asked_by_its_synonym_given_or_counted(tmp_path: Path) -> None:
    root = folder(tmp_path)
    assert prompts(stream(), root) == {"cobwebbed": "a cobwebbed", "polar_bear": "a polar bear"}
    assert prompts(stream(synonyms={"cobwebbed": "spider_web"}), root)["cobwebbed"] == "a spider web"
    several = {"cobwebbed": ["spider web", "spider web like"], "polar_bear": ["ice bear"]}
    counted = stream(synonyms=several, counted_in="words")
    assert prompts(counted, root) == {"cobwebbed": "a spider web", "polar_bear": "a polar bear"}  # of equals the own name
    arrivals = Arrivals(counted, root)
    first, *_ = arrivals.there()
    assert arrivals.session(first, 1, {})[0].vocabulary[0].prompts == ("a spider web",)
    assert class_names(["a_b"], ["{}!"], {"a_b": ("c_d", "e")}) == (ClassName("a_b", ("c d!",)),)
    one, two = build_stream(stream(), root), build_stream(counted, root)
    assert one.sessions[0].digest != two.sessions[0].digest and one.sessions[0].data.content() == two.sessions[0].data.content()


def test_a_name_that_the_model_knows_turns_chance_into_right() -> None:
    letters, clip = string.ascii_lowercase, load(ModelConfig())
    names = [f"mark {place}" for place in range(26)]
    images = torch.stack([clip.transform()(decode(render(ord(letter), "DejaVuSans-Oblique"), letter)) for letter in letters])
    right = []
    for synonyms in ({}, {name: (f"latin small letter {letter}",) for name, letter in zip(names, letters, strict=True)}):
        with torch.no_grad():
            texts = class_features(clip.encode_text, clip.tokenize, class_names(names, ["{}"], synonyms))
            right.append(int(((clip.encode_image(images) @ texts.T).argmax(1) == torch.arange(26)).sum()))
    assert right[0] <= 4 and right[1] >= 24


def test_captions_that_change_are_counted_again(tmp_path: Path) -> None:
    root, config = folder(tmp_path), stream(synonyms={"polar_bear": ["ice bear"]}, counted_in="words")
    first = stream_of(config, root, tmp_path / "outlines")
    (root / "words" / "6.png").write_bytes(png(3, 60))
    (root / "words" / "6.txt").write_text("another ice bear")
    asked = [stream_of(config, root, tmp_path / "outlines").sessions[-1].vocabulary[-1].prompts, first.sessions[-1].vocabulary[-1].prompts]
    assert asked == [("a ice bear",), ("a polar bear",)]


def test_synonyms_that_nothing_can_choose_or_no_class_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cobwebbed has several, and nothing says which is asked"):
        stream(synonyms={"cobwebbed": ["spider web", "web"]})
    with pytest.raises(ConfigError, match="there are no synonyms to count"):
        stream(counted_in="words")
    root = folder(tmp_path)
    with pytest.raises(DataError, match="there is no class 'cobweb'; there are cobwebbed, polar_bear; did you mean cobwebbed"):
        build_stream(stream(synonyms={"cobweb": "web"}), root)
    with pytest.raises(DataError, match=r"nowhere does not exist; synonyms are counted in the captions there: stream\.counted_in"):
        build_stream(stream(synonyms={"cobwebbed": "web"}, counted_in="nowhere"), root)
    with pytest.raises(DataError, match="pets has no caption to count synonyms in"):
        build_stream(stream(synonyms={"cobwebbed": "web"}, counted_in="pets"), root)
