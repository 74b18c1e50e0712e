"""What a method says that it learns from is what its check lets through, and who takes data in or compares is told in time."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from prefect.futures import PrefectConcurrentFuture

from cl.data.schema import EXTRAS
from cl.data.table import ImageTable
from cl.errors import DataError, MethodError
from cl.methods import CONFIGS
from cl.methods.describe import learned_from
from cl.run_config import CompareConfig
from flows.intake.ingest import Source, ingest
from flows.settings import Place
from tests import make
from tests.conftest import lay_out
from tests.test_ingest import photos, take


def printed(name: str) -> Iterator[tuple[dict[str, str], tuple[str, ...]]]:
    """What `evergreen methods` says that a method learns from: settings, and what a session must hold some of."""
    own, _, aside = learned_from(CONFIGS[name]).partition(" (")
    kinds = tuple(own.split(" or "))
    yield {}, kinds
    for setting, words, also, told in re.findall(r"(\w+): ([\w ]+): (also )?([\w ]+?)(?: alone)?[;)]", aside):
        for word in words.split(" or "):
            yield {setting: word}, (*(kinds if also else ()), *told.split(" or "))


PRINTED = [(name, *each) for name in CONFIGS for each in printed(name)]


@pytest.mark.parametrize(("name", "settings", "kinds"), PRINTED, ids=lambda each: each if isinstance(each, str) else "")
def test_a_method_takes_just_the_sessions_that_it_says_it_learns_from(name: str, settings: dict[str, str], kinds: tuple[str, ...]) -> None:
    config = CONFIGS[name].model_validate(settings)
    taken = []
    for kind in ("labels", "captions", "unlabelled"):
        session = make.session(1, [0, 1], [0, 1], labels=kind == "labels", captions=kind == "captions")
        data = session.data
        if kind == "unlabelled":  # classes are known by name, and no image has one
            session = make.session(1, [0, 1], [0, 1])
            data = session.data.without("label")
        if name == "pseudolabel" and kind == "labels":  # pseudolabels are for the rows without: of every class, or all of one
            data = data.unlabelled(range(8 if settings.get("paradigm") == "trzsl" else 4))
        if settings.get("by") == "identity":
            things = pa.array([f"thing {row // 2}" for row in range(len(data))])
            data = ImageTable(data.table.append_column(EXTRAS.field("identity"), things))
        try:
            config.build(make.tiny(), 0).check(replace(session, data=data))
        except MethodError:
            continue
        taken.append(kind)
    assert tuple(taken) == config.wants() == kinds


def test_settings_that_change_what_is_learned_from_are_told_beside() -> None:
    assert learned_from(CONFIGS["lwf"]) == "labels"
    assert learned_from(CONFIGS["gda"]) == "labels (unlabelled: em: also unlabelled)"
    assert {name for name, settings, _ in PRINTED if settings} == {"gda", "ncm", "slda", "pseudolabel", "retrieve_then_align"}


CONFIG = """
name: birds
model: {{name: tiny}}
stream: {{kind: collection, sources: {{inbox: inbox}}}}
method: {method}
"""


def test_a_session_that_a_config_of_the_project_cannot_use_is_told_at_once(project: Path) -> None:
    for name, method in (("heads", "ridge"), ("tuned", "finetune")):
        (project / f"{name}.yaml").write_text(CONFIG.format(method=method))
    (project / "notes.yaml").write_text("collection: [inbox")
    rows = [f"{path.relative_to(project)},a square" for path in sorted(photos(project / "may", 0, 1).rglob("*.png"))]
    (project / "t.csv").write_text("\n".join(["image,caption", *rows]))
    told = [note for note in take(project, project / "t.csv", "may").notes if "cannot use it" in note]
    assert told == [
        "heads.yaml cannot use it: ridge learns from labels, and the session holds captions; "
        "choose another method there, or another collection for such sessions"
    ]
    assert not [note for note in take(project, photos(project / "june", 2, 3), "june").notes if "cannot use it" in note]


def test_compare_says_before_it_starts_which_methods_cannot_learn_the_stream(project: Path) -> None:
    from flows.learn.job import check_methods, jobs_of

    config = lay_out(project)
    text = config.read_text().replace("increment: 2", "increment: 2\n  supervision: none")
    config.write_text(text.replace("[zero_shot, finetune]", "[zero_shot, finetune, gda, finetune]").replace(", finetune]", "]"))
    with pytest.raises(
        MethodError,
        match=r"2 of the methods to compare cannot learn this stream\. finetune: colours: .*; gda: colours: gda learns from labels",
    ):
        check_methods(jobs_of(str(config)))


def test_of_a_comparison_the_longest_streams_begin_first_and_the_results_stand_in_the_order_of_the_config(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import compare
    from flows.learn.job import check_methods, jobs_of, label

    config = lay_out(project)
    methods = "[zero_shot, gda, finetune, {name: replay, train: {max_steps: 7}}]"
    config.write_text(config.read_text().replace("[zero_shot, finetune]", methods))
    jobs = jobs_of(str(config))
    lengths = check_methods(jobs)
    assert (lengths["zero_shot"], lengths["gda"]) == (0, 1) and 1 < lengths["finetune"] < lengths["replay"]
    began: list[str] = []

    class Pool:
        def __init__(self, most: int, clustered: bool) -> None:
            self.pool, self.given, self.most, self.clustered = ThreadPoolExecutor(most), 0, most, clustered

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None:
            self.pool.shutdown()

        def submit(self, _: Any, parameters: dict[str, Any]) -> PrefectConcurrentFuture[Any]:
            self.given += 1
            assert self.clustered or self.given - len(began) <= self.most + 1
            return PrefectConcurrentFuture(uuid4(), self.pool.submit(self.learn, label(parameters["job"])))

        def learn(self, name: str) -> dict[str, str]:
            began.append(name)
            if name == "gda" and failing:
                raise MethodError("gda has failed")
            return {"method": name}

    assert compare.alone(jobs[2]).endswith("compare: {methods: [zero_shot, finetune, joint]} puts it beside what it has to beat")

    assert "compare: {methods: [zero_shot, finetune, <replay as it is set here>, joint]}" in compare.alone(jobs[3])

    failing = False
    monkeypatch.setattr(compare, "runner", lambda kind, workers, cluster: Pool(workers, kind == "dask"))
    wanted = CompareConfig.model_validate({"methods": ["finetune"], "parallel": 1, "runner": "dask"})
    first = [3, 2, 1, 0]
    learned = compare.learn_all(jobs, wanted, None, None, first)
    assert [each["method"] for each in learned] == [label(job) for job in jobs] == ["zero_shot", "gda", "finetune", "replay"]
    assert began == ["replay", "finetune", "gda", "zero_shot"]
    failing = True
    began.clear()
    with pytest.raises(MethodError, match="gda has failed"):
        compare.learn_all(jobs, wanted.model_copy(update={"parallel": 2, "runner": "processes"}), None, None, first)


def test_a_dry_run_says_what_would_be_taken_in_and_writes_nothing(project: Path) -> None:
    photos(project / "may", 0, 1)
    (project / "may" / "red" / "bad.png").write_bytes(b"none")
    before = sorted(project.rglob("*"))
    outcome = ingest(Source(project / "may", "may"), project / "data", Place(project), dry=True)
    assert (outcome.entry.folder, outcome.entry.train, outcome.entry.test, outcome.notes) == ("0001-may", 4, 2, ["nothing is written"])
    assert [problem.where for problem in outcome.problems] == ["red/bad.png"] and sorted(project.rglob("*")) == before
    assert take(project, project / "may", "may").entry == outcome.entry


def test_where_every_image_is_set_aside_the_message_leads_with_that(project: Path) -> None:
    files: dict[str, Any] = {f"{kind}/{i}.png": make.png(0, i) for kind in ("cat", "dog") for i in range(5)}
    for name, data in files.items():
        (project / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "in" / name).write_bytes(data)
    with pytest.raises(DataError, match=r"in: every image is set aside; set aside: 10 label conflict, see .*refused\.csv"):
        take(project, project / "in", "s")


def test_captions_that_the_configs_own_model_cuts_are_counted(tmp_path: Path) -> None:
    from cl.data.table import ImageTable, write
    from cl.plan import plan
    from cl.run_config import parse_config

    images = [make.png(0, i) for i in range(4)]
    texts = [["word " * count] for count in (10, 300, 400, 10)]
    write({split: ImageTable.of([f"{split}/{i}" for i in range(4)], images, captions=texts) for split in ("train", "test")}, tmp_path / "d")
    config = {"name": "x", "model": {"name": "tiny"}, "train": {"max_steps": 1, "batch_size": 4}, "seed": 0}
    stream = {"kind": "listed", "sources": {"d": "d"}, "supervision": "captions", "sessions": [{"name": "one"}]}
    made = plan(parse_config({**config, "stream": stream}, "x"), tmp_path, "v")
    length = made.build().clip.context_length
    assert f"captions longer than the {length} tokens that the model can read, which are cut: 2" in map(str, made.remarks())
