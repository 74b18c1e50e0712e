"""The papers' own protocols: each preset reads a small made folder of the layout it names, and cuts it as the paper does."""

import json
from pathlib import Path

import pytest

from cl.config import TrainConfig, override, read_yaml
from cl.errors import DataError
from cl.methods.presets.pseudolabel import PseudolabelConfig
from cl.run_config import RunConfig, parse_config, train_config, variants
from cl.streams.build import build_stream
from cl.streams.stream import Stream
from tests.make import png

PAPERS = Path(__file__).parents[1] / "flows" / "configs" / "papers"


def config(name: str, *overrides: str) -> RunConfig:
    return parse_config(override(read_yaml(PAPERS / f"{name}.yaml"), overrides), name)


def built(name: str, root: Path, *overrides: str) -> Stream:
    return build_stream(config(name, *overrides).stream, root)


def folders(root: Path, classes: int, train: int, test: int) -> None:
    for split, each in (("train", train), ("test", test)):
        for number in range(classes):
            folder = root / split / f"class {number:03}"
            folder.mkdir(parents=True)
            for row in range(each):
                (folder / f"{split}_{number:03}_{row}.png").write_bytes(png(number % 6, row))


@pytest.mark.parametrize(
    ("name", "base", "ways", "sessions"), [("cifar100", 60, 5, 8), ("mini_imagenet", 60, 5, 8), ("cub200", 100, 10, 10)]
)
def test_few_shot_protocols_have_the_published_sessions(tmp_path: Path, name: str, base: int, ways: int, sessions: int) -> None:
    folders(tmp_path / name, base + ways * sessions, 6, 1)
    stream = built(f"cpe_clip_{name}", tmp_path)
    assert [len(session.classes) for session in stream.sessions] == [base] + [ways] * sessions
    assert [len(session.data) for session in stream.sessions] == [6 * base] + [5 * ways] * sessions
    assert len(stream.exam(sessions + 1)[0].classes) == base + ways * sessions


def test_shots_can_be_those_of_the_published_session_lists(tmp_path: Path) -> None:
    folders(tmp_path / "mini_imagenet", 100, 6, 1)
    lists = tmp_path / "mini_imagenet" / "index_list"
    lists.mkdir()
    for session in range(8):
        names = [f"MINI-ImageNet/train/train_{60 + 5 * session + number:03}_{row}.jpg" for number in range(5) for row in (5, 3, 2, 1, 0)]
        (lists / f"session_{session + 2}.txt").write_text("\n".join(names) + "\n")
    stream = built("cpe_clip_mini_imagenet", tmp_path, "stream.lists=mini_imagenet/index_list")
    assert all(len(s.data) == 25 and not any("_4.png" in row for row in s.data.ids) for s in stream.sessions[1:])
    (lists / "session_3.txt").write_text("a/b/nowhere.jpg\n")
    with pytest.raises(DataError, match=r"session_3.txt: 1 of 1 image is not among the session's \(nowhere\)"):
        built("cpe_clip_mini_imagenet", tmp_path, "stream.lists=mini_imagenet/index_list")
    (lists / "session_3.txt").unlink()
    with pytest.raises(DataError, match=r"lists names the folder of session_2.txt"):
        built("cpe_clip_mini_imagenet", tmp_path, "stream.lists=mini_imagenet/index_list")


@pytest.mark.parametrize(("name", "sizes"), [("vr_lwf_one_session", [10]), ("vr_lwf_sessions", [2] * 5)])
def test_vr_lwf_learns_eurosat_at_once_or_two_classes_at_a_time(tmp_path: Path, name: str, sizes: list[int]) -> None:
    folders(tmp_path / "eurosat", 10, 2, 1)
    folders(tmp_path / "tiered_imagenet", 4, 1, 1)
    stream = built(name, tmp_path)
    crops = {train_config(run, session).augment for run in variants(config(name)) for session in stream.sessions}
    assert crops == {"crop_and_mirror"}
    assert [len(session.classes) for session in stream.sessions] == sizes
    assert stream.sessions[0].vocabulary[0].prompts == ("this is a satellite photo of class 000 .",)
    assert stream.probes[0].classes[0].prompts == ("this is a photo of class 000 .",)


def test_vr_lwf_learns_cocos_objects_ten_at_a_time_in_the_order_of_its_annotations(tmp_path: Path) -> None:
    names = [name for name in config("vr_lwf_coco").stream.order]  # type: ignore[union-attr]
    for split in ("train", "test"):
        for number, name in enumerate(names):
            (tmp_path / "coco_objects" / split / name).mkdir(parents=True)
            (tmp_path / "coco_objects" / split / name / f"{split}.png").write_bytes(png(number % 6, number))
    folders(tmp_path / "tiered_imagenet", 2, 1, 1)
    sessions = built("vr_lwf_coco", tmp_path).sessions
    assert [len(session.classes) for session in sessions] == [10] * 8 and len({*names}) == 80
    assert [known.name for known in sessions[-1].vocabulary] == names
    assert names[:2] + names[-1:] == ["person", "bicycle", "toothbrush"]
    assert sessions[0].vocabulary[0].prompts == ("this is a photo of person in the scene .",)


def karpathy(folder: Path, places: dict[str, str], images: int) -> None:
    """`images` of each split, with two sentences each; `places` says in which folder a split lies."""
    entries = []
    for split, place in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for row in range(images):
            name = f"{split}{row}.png"
            (folder / place / name).write_bytes(png(row % 6, row))
            entries.append({"filename": name, "split": split, "sentences": [{"raw": f"{split} {row}"}, {"raw": f"again {row} "}]})
            if place != "images":
                entries[-1]["filepath"] = place
    (folder / f"dataset_{folder.name}.json").write_text(json.dumps({"images": entries}))


def test_mod_x_learns_flickr30k_in_five_runs_beside_coco(tmp_path: Path) -> None:
    karpathy(tmp_path / "flickr30k", {"train": "images", "val": "images", "test": "images"}, 10)
    karpathy(tmp_path / "coco", {"train": "train2014", "restval": "val2014", "test": "val2014"}, 3)
    stream = built("mod_x", tmp_path)
    assert [len(session.data) for session in stream.sessions] == [2] * 5
    assert [caption for s in stream.sessions for caption in s.data.captions] == [[f"train {row}", f"again {row}"] for row in range(10)]
    assert [(s.name, len(s.data), s.kind) for s in stream.probes] == [("coco", 3, "retrieve")]
    assert config("mod_x").train.batch_norm == "trained"  # their student's, by batch; their teacher's stand still
    with pytest.raises(DataError, match="part 6 of 5"):
        built("mod_x", tmp_path, "stream.sessions=[{name: a, source: flickr30k, part: [6, 5]}]")


def test_another_json_file_is_not_taken_for_karpathys(tmp_path: Path) -> None:
    (tmp_path / "flickr30k").mkdir()
    (tmp_path / "flickr30k" / "dataset_flickr30k.json").write_text('{"images": [{"file": 1}]}')
    with pytest.raises(DataError, match="JSON of no kind that is read"):
        built("mod_x", tmp_path)


@pytest.mark.parametrize("order", [1, 2])
def test_mtil_takes_eleven_data_sets_in_the_published_orders(tmp_path: Path, order: int) -> None:
    stream = config(f"mtil_order_{order}").stream
    for name in stream.sources:
        folders(tmp_path / name, 2, 1, 1)
    sessions = [session.name for session in built(f"mtil_order_{order}", tmp_path).sessions]
    rates = [train_config(config(f"mtil_order_{order}"), session).lr for session in built(f"mtil_order_{order}", tmp_path).sessions]
    assert {name: rate for name, rate in zip(sessions, rates, strict=True) if rate != 1e-5} == {"aircraft": 5e-5, "mnist": 5e-5}
    smoothed = {run.method.name: getattr(run.method, "smoothing", 0) for run in variants(config(f"mtil_order_{order}"))}
    assert smoothed == dict.fromkeys(("finetune", "lwf", "lwf_vr_zscl", "zscl", "wise_ft"), 0.2) | {"zero_shot": 0}
    frozen = {run.method.name: getattr(run.method, "scale", "frozen") for run in variants(config(f"mtil_order_{order}"))}
    assert set(frozen.values()) == {"frozen"}  # as in their code, where the logit scale is no parameter that trains
    assert config(f"mtil_order_{order}").train.drop_last is False
    assert len(set(sessions)) == 11 and (sessions[0], sessions[-1]) == [("aircraft", "sun397"), ("stanford_cars", "cifar100")][order - 1]


@pytest.mark.parametrize("name", ["flowers102", "resisc45", "fgvc_aircraft", "mnist", "eurosat", "dtd"])
def test_pseudolabel_sets_are_learned_in_three_paradigms(tmp_path: Path, name: str) -> None:
    folders(tmp_path / name, 5, 4, 1)
    hidden = []
    for changes in ([], ["stream.labelled={classes: 0.62}"], ["stream.labelled=null", "stream.supervision=none"]):
        labels = built(f"pseudolabel_{name}", tmp_path, *changes).sessions[0].data.labels
        hidden.append((labels.count(None), len(set(labels) - {None})))
    assert hidden == [(10, 5), (8, 3), (20, 0)]


@pytest.mark.parametrize("name", ["flowers102", "resisc45", "fgvc_aircraft", "mnist", "eurosat", "dtd"])
def test_pseudolabel_papers_are_the_authors_code_and_evergreens_defaults_another_preset(name: str) -> None:
    code = {
        "selector": "official_stream",
        "weighting": "official_iterative",
        "mixing": "official_pairwise",
        "restart": "official",
        "hold_out": 0.2,
        "first_texts": "official",
        "template": "a photo of a {}",
    }
    taught = [run for run in variants(config(f"pseudolabel_{name}")) if isinstance(run.method, PseudolabelConfig)]
    assert len(taught) == 12 * 5
    for run in (config(f"pseudolabel_{name}"), *taught):
        settings = run.method.model_dump()
        assert {key: settings[key] for key in code} == code
        train = TrainConfig(**run.method.training(False))
        assert (train.epochs, train.batch_size, train.schedule, train.decay_all) == (150, 16, "cosine_epochs", True)
    ours = parse_config(read_yaml(PAPERS.parent / "pseudolabels.yaml"), "pseudolabels")
    for run in variants(ours):
        if isinstance(run.method, PseudolabelConfig):
            assert run.method.model_dump(exclude={"label", "strategy", "modality", "train"}) == PseudolabelConfig().model_dump(
                exclude={"label", "strategy", "modality", "train"}
            )


def test_a_search_differs_from_what_was_measured_with_it_in_the_images_that_examine_and_nothing_else() -> None:
    measured, searched = (read_yaml(PAPERS.parent / "results" / f"{name}.yaml") for name in ("glyphs", "glyphs_search"))
    assert searched["stream"].pop("test_split") == "held_out"
    assert [
        (key, measured[key], searched[key]) for key in measured if key not in ("name", "compare") and measured[key] != searched[key]
    ] == []
    tried = [{**entry, "label": ""} for entry in searched["compare"]["methods"] if isinstance(entry, dict)]
    heads = ("ridge", "gda", "linear_probe")
    methods = [{**entry, "label": ""} for entry in measured["compare"]["methods"] if isinstance(entry, dict)]
    chosen = [entry for entry in methods if entry["name"] in heads and len(entry) > 2]  # what chooses for itself is not searched
    assert len(chosen) == 4 and all(entry in tried for entry in chosen)


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_missing_is_named_and_the_preset_says_how_it_is_laid_out(tmp_path: Path, path: Path) -> None:
    first = next(iter(config(path.stem).stream.sources.values())).path
    with pytest.raises(DataError, match=first.split("/")[0]):
        built(path.stem, tmp_path)
    assert f"{first.split('/')[0]}/" in path.read_text() or "<name>/" in path.read_text()
