"""What MLflow's pages say of runs, versions, models and experiments: what came of them first, and names that others chose stay text."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cl.evaluation.matrix import Matrix
from cl.reports.card import MOST, card, compared_card, cut, headline
from flows.registry.cards import licence, tell, tell_experiment
from flows.registry.champion import CHAMPION, change, history
from flows.registry.model_card import describe
from flows.settings import Place
from flows.tracking.notes import OURS, describe_run, first_line, renewed
from flows.tracking.runs import Tracker
from flows.tracking.views import NOTE, pages, view
from tests.test_report import make_report

HARM = "a|b <script>alert(1)</script> ![x](http://harm) `c` [l](http://harm) *s*"
SAFE = r"a\|b &lt;script>alert(1)&lt;/script> \!\[x\](http://harm) \`c\` \[l\](http://harm) \*s\*"


@pytest.fixture
def tracker(stored: Path) -> Tracker:
    return Tracker(Place(stored), "glyphs")


def opened(tracker: Tracker, method: str = "finetune", **metrics: float) -> str:
    run, _ = tracker.open(method, "stream", f"glyphs {method} seed 0", {"evergreen.method": method}, {})
    for name, value in metrics.items():
        tracker.client.log_metric(run, name.replace("__", "/"), value)
    return run


def registered(tracker: Tracker, run: str, name: str = "glyphs") -> str:
    if not tracker.client.search_registered_models(f"name = '{name}'"):
        tracker.client.create_registered_model(name)
    return str(tracker.client.create_model_version(name, "somewhere", run).version)


def test_a_card_opens_with_scores_and_says_what_became_of_each_set() -> None:
    report = replace(make_report(), version="glyphs/3", gate={"word": "refused", "reason": "greek fell"})
    lines = card(report).splitlines()
    assert lines[0] == headline(report) == "top-1 72.5 after 2 sessions: finetune, seed 0"
    assert lines[2] == "**finetune, seed 0: glyphs/3 was refused: greek fell.**"
    assert "gained 57.5 points on 2 taught sets" in lines[4].lower() and "lost 20.0 on 1 probe" in lines[4]
    cells = [[cell.replace("&emsp;", "").strip() for cell in row.strip("|").split("|")] for row in lines if row.startswith("| ")]
    assert cells[0] == ["set", "taught by", "at the start", "right after", "now"]
    assert ["greek", "greek", "10.0", "90.0", "50.0"] in cells and ["latin", "–", "80.0", "–", "60.0"] in cells


def test_names_that_others_chose_stay_text_in_every_card(tracker: Tracker) -> None:
    report = replace(
        make_report(HARM, sets=(HARM, "arrows", "latin")),
        stream=HARM,
        sessions=(HARM, "arrows"),
        version="glyphs/1",
        gate={"word": "refused", "reason": HARM},
    )
    run = opened(tracker)
    registered(tracker, run)
    tell(tracker, run, report, Path("reports"))
    change(tracker.place, tracker.client, "glyphs", CHAMPION, "1", HARM, HARM)
    tell_experiment(tracker, "glyphs")
    client = tracker.client
    texts = [
        client.get_run(run).data.tags[NOTE],
        client.get_model_version("glyphs", "1").description,
        client.get_registered_model("glyphs").description,
        client.get_experiment(tracker.experiment).tags[NOTE],
        compared_card([report], ["#/runs/1"]),
    ]
    for text in texts:
        assert SAFE in text and HARM not in text and "<script" not in text and "![" not in text.replace(r"\![", "")


def test_a_card_fits_into_what_mlflow_keeps_however_many_and_long_the_names_are() -> None:
    sets = tuple(f"{number} {'<&|' * 60}" for number in range(500))
    report = make_report()
    rows = report.matrix.rows[:, [0] * 500]
    many = replace(report, matrix=Matrix(rows, sets, (1,) * 500), headline=dict.fromkeys(sets, "top1"), hits={})
    assert len(card(many)) <= MOST + 10 and "12 of 500 sets" in card(replace(many, sessions=("a", "b")))
    assert cut(["x" * 4000, "y" * 4000]) == f"{'x' * 4000}\n\n…\n"


def test_what_a_person_wrote_is_left_alone_and_ours_is_renewed(tracker: Tracker) -> None:
    run = opened(tracker)
    describe_run(tracker.client, run, "first")
    describe_run(tracker.client, run, "second")
    ours = tracker.client.get_run(run).data.tags[NOTE]
    assert ours.startswith("second\n") and ours.endswith(OURS)
    tracker.client.set_tag(run, NOTE, "mine | own")
    describe_run(tracker.client, run, "third")
    assert tracker.client.get_run(run).data.tags[NOTE] == "mine | own"
    assert renewed(ours, "second") is None and renewed("", "x") and renewed("mine", "x") is None
    assert first_line("mine | own\nmore") == r"mine \| own" and first_line(ours) == "second" and first_line(None) == ""


def test_a_models_page_says_who_is_champion_and_shows_no_raw_history(tracker: Tracker) -> None:
    client, place = tracker.client, tracker.place
    for _ in range(2):
        registered(tracker, opened(tracker))
    client.update_model_version("glyphs", "2", f"top-1 50.0\n\n{OURS}")
    change(place, client, "glyphs", CHAMPION, "1", "the first", "Ann")
    change(place, client, "glyphs", CHAMPION, "2", "better", "Ben")
    text = client.get_registered_model("glyphs").description
    assert "- **champion**: version 2, since " in text and ", by Ben: better" in text
    assert "| [2](#/models/glyphs/versions/2?workflowType=machine_learning)&emsp; | top-1 50.0 |" in text
    assert text.index("version 2, by Ben") < text.index("version 1, by Ann")
    assert all(name.startswith("mlflow.") or name == "evergreen.project" for name in client.get_registered_model("glyphs").tags)


def test_what_earlier_releases_noted_in_sight_is_read_and_put_out_of_sight_by_the_next_change(tracker: Tracker) -> None:
    client, place = tracker.client, tracker.place
    for _ in range(2):
        registered(tracker, opened(tracker))
    old = {"when": "2026-01-01T00:00:00+00:00", "who": "Ann", "alias": CHAMPION, "before": None, "after": "1", "why": "x", "state": "done"}
    client.set_registered_model_tag("glyphs", "evergreen.history.0", json.dumps(old | {"number": 1}))
    client.set_registered_model_alias("glyphs", CHAMPION, "1")
    assert [made.after for made in history(place, client, "glyphs")] == ["1"]
    client.set_registered_model_tag("glyphs", "mlflow.evergreen.history.0", json.dumps(old | {"number": 1}))  # killed between the two
    assert [made.after for made in history(place, client, "glyphs")] == ["1"]
    change(place, client, "glyphs", CHAMPION, "2", "y")
    assert [made.after for made in history(place, client, "glyphs")] == ["1", "2"]
    assert not any(name.startswith("evergreen.history") for name in client.get_registered_model("glyphs").tags)


def test_an_experiments_page_opens_with_its_champion_and_keeps_a_view_with_method_score_and_version(tracker: Tracker) -> None:
    run = opened(tracker, cl__last=0.5, cl__forgetting=0.1, top1__greek=0.5)
    tracker.client.set_tag(run, NOTE, f"top-1 50.0\n{OURS}")
    tell_experiment(tracker, "glyphs")
    tags = tracker.client.get_experiment(tracker.experiment).tags
    assert tags[NOTE].startswith("No champion yet. Runs: [methods, scores, versions](#/experiments/")
    assert "viewStateShareKey=evergreen" in tags[NOTE] and f"/runs/{run}?workflowType=machine_learning)&emsp; | top-1 50.0 |" in tags[NOTE]
    kept = json.loads(tags["mlflow.sharedViewState.evergreen"])
    assert kept["name"] and isinstance(kept["createdAt"], int)
    shown = json.loads(kept["state"])
    assert shown == view(["cl/forgetting", "cl/last", "top1/greek"])
    assert {"metrics.`cl/last`", "metrics.`cl/forgetting`", "tags.`evergreen.method`", "attributes.`Models`"} <= set(
        shown["selectedColumns"]
    )
    assert "metrics.`cl/average`" not in shown["selectedColumns"] and shown["compareRunSections"][0]["name"] == "cl"
    assert all("evergreen" in address for address in pages("1").values())

    version = registered(tracker, run)
    tracker.client.set_model_version_tag("glyphs", version, "evergreen.method", "finetune")
    change(tracker.place, tracker.client, "glyphs", CHAMPION, version, "why" * 500)
    assert len(tracker.client.get_registered_model("glyphs").description) < 1000
    # of a version that an earlier release registered; who changes the champion, by hand too, changes the page
    assert tracker.client.get_experiment(tracker.experiment).tags[NOTE].startswith("Champion glyphs/1: finetune, 50.0 at the end. Runs: ")
    tracker.client.update_model_version("glyphs", version, f"top-1 50.0\n\n{OURS}")
    tell_experiment(tracker, "glyphs")
    assert tracker.client.get_experiment(tracker.experiment).tags[NOTE].startswith("Champion glyphs/1: top-1 50.0. Runs: ")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "glyph_base"}, "Apache-2.0"),
        ({"name": "ViT-B-32", "pretrained": "openai"}, "MIT"),
        ({"name": "hf-hub:org/repo"}, "org/repo"),
        ({"name": "local-dir:/models/x"}, "not known here"),
        ({"name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, "laion2b_s34b_b79k"),
    ],
)
def test_a_card_says_what_is_known_of_the_base_models_licence(model: dict[str, str], said: str) -> None:
    assert said in licence(model)


def test_a_model_that_a_person_describes_keeps_that_description(tracker: Tracker) -> None:
    version = registered(tracker, opened(tracker))
    client: MlflowClient = tracker.client
    client.update_registered_model("glyphs", "ours since 2024")
    change(tracker.place, client, "glyphs", CHAMPION, version, "why")
    describe(client, "glyphs", [])
    assert client.get_registered_model("glyphs").description == "ours since 2024"
