"""Published figures: to the digit, of the protocol at hand alone, and never without their source."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cl.errors import ConfigError
from cl.evaluation.evaluate import pack
from cl.evaluation.matrix import Matrix
from cl.reports.published import Block, beside, blocks, rows, unlike
from cl.run_config import RunConfig, read_config
from tests.test_report import make_report

PAPERS = Path(__file__).parents[1] / "flows" / "configs" / "papers"


def config(name: str, *overrides: str) -> RunConfig:
    return read_config(PAPERS / f"{name}.yaml", overrides)


def shown(name: str, *overrides: str) -> tuple[list[str], str]:
    run = config(name, *overrides)
    assert run.compare
    stands, why = beside(run.compare.published, run.model_dump(mode="json"))
    return [each.protocol for each in stands], why


def of(sessions: int, block: str) -> Block:
    return blocks()[block].model_copy(update={"sessions": sessions})


def figures(block: str) -> dict[str, tuple[float | None, ...]]:
    return {each.method: each.values for each in blocks()[block].figures}


@pytest.mark.parametrize(
    ("block", "method", "values"),
    [
        ("mtil_order_1", "ZSCL", (68.1, 75.4, 83.6)),
        ("mtil_order_1", "DPW, 30.8 M trainable", (70.4, 79.3, 88.3)),
        ("mtil_order_1_without_task_id", "MoE-Adapters", (69.1, 66.2, 66.9)),
        ("mtil_order_1_five_shots", "NuSA-CL", (68.1, 70.3, 75.4)),
        ("mtil_order_2", "ZSCL", (64.2, 74.5, 83.4)),
        ("xtail_16_shots", "LADA", (61.5, 72.7, 83.1)),
        ("xtail_full", "MoE-Adapters", (56.4, 67.2, 77.3)),
        ("cil_openai_cifar100", "DuLBE", (89.5, 84.2)),
        ("cil_openai_imagenet_r", "PROOF", (82.8, 77.1)),
        ("cil_laion_cub200", "RanPAC", (86.8, 80.5)),
        ("cil_laion_imagenet_r", "VIS (least-squares SVM, closed form)", (86.1, 80.6)),
        ("mini_imagenet_few_shot", "CPE-CLIP", (90.23, 82.77, 86.13, 7.46)),
        ("pseudolabel_eurosat_transductive", "GRIP visual", (97.0,)),
    ],
)
def test_figures_are_as_published(block: str, method: str, values: tuple[float, ...]) -> None:
    assert figures(block)[method] == values


def test_a_method_differs_from_block_to_block_and_what_nobody_told_is_left_open() -> None:
    assert figures("cil_openai_cifar100")["PROOF"] != figures("cil_laion_cifar100")["PROOF"]
    assert figures("cil_openai_cifar100")["Continual-CLIP"] == (None, 66.7) and "PROOF" not in figures("cil_openai_cub200")
    for name, block in blocks().items():
        assert all(len(each.values) == len(block.metrics) and each.source for each in block.figures), name
        assert len(figures(name)) == len(block.figures), f"{name} has a method twice"


def test_every_block_stands_beside_a_shipped_config_and_only_under_its_own_protocol() -> None:
    for path in PAPERS.glob("*.yaml"):
        run = read_config(path)
        names = run.compare.published if run.compare else ()
        assert len(shown(path.stem)[0]) == (1 if names else 0), path.stem
    used = {name for path in PAPERS.glob("*.yaml") for name in (read_config(path).compare or 0).published}  # type: ignore[union-attr]
    assert used == set(blocks())


@pytest.mark.parametrize(
    ("name", "overrides", "protocol"),
    [
        ("mtil_order_1", (), "each set among its own classes"),
        ("mtil_order_1", ("stream.candidates=all",), "task id not given"),
        ("mtil_order_1", ("stream.labelled={shots: 5}",), "five images of each class"),
        ("mtil_order_1", ("stream.labelled={shots: 5}", "stream.candidates=all"), None),
        ("cil_openai_cifar100", ("stream.labelled={shots: 16}",), None),
        ("cil_laion_cub200", ("stream.base=15",), None),
        ("cil_openai_cub200", ("stream.supervision=captions",), None),
        ("cpe_clip_mini_imagenet", ("stream.labelled={shots: 5}",), None),
        ("mtil_order_2", ("stream.sessions.3.test_limit=50",), None),
        ("xtail_order_1", (), "16 images of each class"),
        ("xtail_order_1", ("stream.labelled=null",), "all training images"),
        ("pseudolabel_dtd", (), "semi-supervised"),
        ("pseudolabel_dtd", ("stream.labelled={classes: 0.62}",), "transductive"),
        ("pseudolabel_dtd", ("stream.labelled=null", "stream.supervision=none"), "unsupervised"),
    ],
)
def test_settings_choose_the_block_or_none(name: str, overrides: tuple[str, ...], protocol: str | None) -> None:
    stands, why = shown(name, *overrides)
    assert [protocol in block for block in stands if protocol] == [True] * (protocol is not None) and bool(why) == (protocol is None)


def test_another_model_or_a_cut_exam_has_nothing_beside_it_and_is_told_why() -> None:
    stands, why = shown("cil_openai_cub200", "model.pretrained=laion400m_e32", "stream.test_limit=50")
    assert stands == []
    assert "are for class-incremental CUB-200, ViT-B/16 of OpenAI" in why
    assert "stream.test_limit is 50 and not None; model.pretrained is laion400m_e32 and not openai" in why
    assert [each.setting for each in unlike(blocks()["mtil_order_1"], config("mtil_order_1", "model.name=tiny").model_dump())] == [
        "model.name"
    ]


def test_our_rows_are_read_by_the_papers_metrics_and_stand_first() -> None:
    scores = np.array([[55, 52, 45], [80, 50, 40], [70, 85, 42], [66, 78, 90]]) / 100
    report = replace(make_report(), matrix=Matrix(scores, ("a", "b", "c"), (1, 2, 3)), headline=dict.fromkeys("abc", "top1"))
    table = rows(of(3, "mtil_order_1"), {"finetune": [report]})
    assert table[0] == ["finetune", "45.5", "66.8", "78.0", "measured here"]
    assert ["ZSCL", "68.1", "75.4", "83.6", "arXiv:2604.18075 (read in the paper)"] in table
    assert ["CMAP", "74.2", "80.5", "88.7", "arXiv:2605.25708 (abstract only)"] in table


def test_class_incremental_rows_count_images_and_what_is_not_defined_is_a_dash() -> None:
    scores = np.array([[0, 0], [1, 0], [0.5, 1]], dtype=float)
    hits = {"a": pack(np.array([True, False])), "b": pack(np.ones(6, dtype=bool))}
    report = make_report()
    seen = {**report.provenance.config, "stream": {"candidates": "seen", "kind": "classes"}}
    report = replace(
        report,
        matrix=Matrix(scores, ("a", "b"), (1, 2)),
        headline=dict.fromkeys("ab", "top1"),
        hits=hits,
        provenance=replace(report.provenance, config=seen),
    )
    own = rows(of(2, "cil_openai_cifar100"), {"ridge": [report]})[0]
    assert own == ["ridge", "93.8", "87.5", "measured here"]  # (1 + 7/8) / 2 and 7/8: by image, not by set
    assert rows(blocks()["cil_openai_cifar100"], {"ridge": [report]})[0] == ["ridge", "–", "–", "measured here, 2 of 10 sessions"]
    matrix = Matrix(scores[[0, 2]], ("a", "b"), (1, 1))
    together = replace(report, matrix=matrix, provenance=replace(report.provenance, config=seen | {"joint": True}))
    assert rows(of(2, "cil_openai_cifar100"), {"joint": [together]})[0] == ["joint", "–", "87.5", "measured here"]
    assert rows(blocks()["mtil_order_1"], {"ridge": [report]})[0][1:4] == ["–"] * 3


def test_a_block_that_is_not_there_is_told_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"compare\.published.*no block of published figures.*did you mean mtil_order_1"):
        config("mtil_order_1", "compare.published=[mtil_order1]")


def test_the_command_line_prints_the_block_under_its_protocol_and_says_where_it_prints_none(capfd: pytest.CaptureFixture[str]) -> None:
    from flows.cli.main import _beside

    report = replace(make_report(), headline=dict.fromkeys(("greek", "arrows", "latin"), "top1"))
    _beside([report], config("mtil_order_2"))
    told = " ".join(capfd.readouterr().out.split())
    assert "MTIL, order II, ViT-B/16 of OpenAI, each set among its own classes (task id given) (percent)" in told
    assert "finetune – – – measured here" in told and "ZSCL 64.2 74.5 83.4 arXiv:2303.06628 (secondary)" in told
    _beside([report], config("mtil_order_2", "model.name=ViT-B-32"))
    out, err = capfd.readouterr()
    assert out == "" and "model.name is ViT-B-32 and not ViT-B-16." in err
    _beside([report], config("vr_lwf_coco"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", sorted(path.stem for path in PAPERS.glob("*.yaml")))
def test_every_preset_prints_its_own_block_and_no_other(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    from flows.cli.main import _beside

    run = config(name)
    _beside([replace(make_report(), headline=dict.fromkeys(("greek", "arrows", "latin"), "top1"))], run)
    out, err = capfd.readouterr()
    told = " ".join(out.split())
    own = shown(name)[0]
    assert [block.protocol for block in blocks().values() if f"{block.protocol} (percent)" in told] == own and err == ""
    assert ("measured here" in told) == bool(own)
