"""Prune: weights that nothing needs go, numbers and names stay, and a crash at any point is gone on with."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cl.errors import PrunedError, StoreError
from cl.evaluation.cells import Cells
from cl.store.store import WEIGHTS, checked, drop, numbers, read_state, whole
from flows.history.conclude import conclude
from flows.history.entries import history_of
from flows.history.standing import Standing
from flows.removal.prune import keeps
from flows.removal.room import finish, prune
from flows.removal.spare import ours, planned
from flows.settings import Place
from tests.conftest import processes
from tests.grown import CONFIG, arrive, grow, plainly
from tests.telling import bad, began, good, learn, says, stand

_GREW = {"a": None, "b": "a", "c": "b", "d": "c", "e": "d"}
FIVE = [good(str(number), state, before, str(number)) for number, (state, before) in enumerate(_GREW.items(), start=1)]
HELD = {str(number): state for number, state in enumerate("abcde", start=1)}


def _kept(steps: list[Any], back: int, aliased: tuple[str, ...] = ()) -> tuple[str, str]:
    standing = stand(steps)
    held = HELD | {said.version: said.state for each in standing.verdicts.values() for said in each if said.version}
    kept = keeps(standing, held, aliased, back)
    return "".join(sorted(kept.states)), "".join(sorted(kept.versions))


@pytest.mark.parametrize(
    "steps, back, aliased, states, versions",
    [
        (FIVE, 3, (), "bcde", "2345"),
        (FIVE, 0, (), "e", "5"),
        (FIVE, 1, ("1",), "ade", "145"),
        ([*FIVE, bad("6", "f", "e", "6")], 0, (), "ef", "56"),  # a person may accept what grew from the head
        ([*FIVE, began("6", "f", "e")], 0, (), "ef", "5"),
        ([*FIVE, learn("6", "f", "e")], 0, (), "ef", "5"),
        ([*FIVE, learn("6", "f", "e"), says("6", "f", "waiting", "6")], 0, (), "ef", "56"),
        ([*FIVE, bad("6", "f", "e", "6", policy="keep")], 0, (), "ef", "56"),
    ],
)
def test_what_is_needed_stays(steps: list[Any], back: int, aliased: tuple[str, ...], states: str, versions: str) -> None:
    assert _kept(steps, back, aliased) == (states, versions)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """Four champions, one session each."""
    project = tmp_path_factory.mktemp("grown")
    before = dict(os.environ)
    (project / "mlruns").mkdir()
    shutil.copy(empty_store, project / "mlruns" / "mlflow.db")
    (project / "growing.yaml").write_text(CONFIG.format(method="finetune"))
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        for number, name in enumerate(("one", "two", "three", "four")):
            arrive(project, name, (number, number + 1), seed=number)
            assert grow(project)["gate"] == "promoted"
        os.environ["EVERGREEN_ROOT"] = str(project)
        yield project
    os.environ.clear()
    os.environ.update(before)


def _standing(project: Path) -> Standing:
    return conclude(history_of(Place(project), "growing").read())


@pytest.mark.slow
def test_old_weights_and_copies_go_in_whatever_order_a_crash_cuts_it_short(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.removal.room as room
    from flows.registry.predict import served
    from flows.tracking.runs import connect

    os.environ["EVERGREEN_ROOT"] = str(grown)
    place = Place(grown)
    client = connect(place)
    states = [learned.state for learned in _standing(grown).line]
    cells = {state: Cells(place.steps, state).read() for state in states}
    stale = place.steps / "interim" / states[0]
    stale.mkdir(parents=True)
    (stale / "interim.safetensors").write_bytes(b"x" * 100)
    left = place.steps / "states" / ".gone.part"
    left.mkdir()
    os.utime(left, (0, 0))
    (place.steps / "states" / "link").symlink_to(grown / "data")

    shutil.copytree(place.steps / "states" / states[0], place.steps / "states" / "experiment")
    assert ("state", "experiment") in {(each.kind, each.name) for each in planned(place, client, "growing", 1, True).goes}
    client.set_registered_model_alias("growing", "mine", "1")
    assert {each.name for each in planned(place, client, "growing", 1, False).goes if each.kind == "version"} == {"2"}
    client.delete_registered_model_alias("growing", "mine")
    plan = planned(place, client, "growing", 1, False)
    assert {(each.kind, each.name) for each in plan.goes} == {
        ("state", states[0]),
        ("state", states[1]),
        ("version", "1"),
        ("version", "2"),
        ("checkpoint", states[0]),
        ("leftover", "steps/states/.gone.part"),
    }
    files = lambda: sum(path.stat().st_size for path in (grown / "mlruns").rglob("*") if path.is_file())  # noqa: E731
    before = files()
    assert prune(place, "growing", 1, False, lambda plan: False, print) is None and files() == before

    class Killed(BaseException): ...

    def dying(at: int) -> Any:
        count = iter(range(100))

        def step(real: Any) -> Any:
            def called(*words: Any, **named: Any) -> Any:
                if next(count) == at:
                    raise Killed
                return real(*words, **named)

            return called

        return step

    # killed before each act of writing, each time a little later, and gone on with by what `update` calls first
    config, journal = SimpleNamespace(name="growing"), history_of(place, "growing")
    at = SimpleNamespace(place=place, config=config, journal=journal, standing=lambda: _standing(grown))
    for moment in range(6):
        with monkeypatch.context() as patch:
            step = dying(moment)
            for name in ("drop", "_empty", "note"):
                patch.setattr(room, name, step(getattr(room, name)))
            with contextlib.suppress(Killed):
                prune(place, "growing", 1, False, lambda plan: True, print)
        if moment == 3:
            finish(at)  # type: ignore[arg-type]
            assert not _standing(grown).unfinished
    prune(place, "growing", 1, False, lambda plan: True, print)
    finish(at)  # type: ignore[arg-type]
    standing = _standing(grown)
    assert standing.pruned == set(states[:2]) and standing.pruned_versions == {"1", "2"} and not standing.unfinished
    assert before - files() > plan.size * 0.9 and not stale.exists() and not left.exists()

    # numbers stay, and whatever needs the weights says why they are not there
    assert {state: Cells(place.steps, state).read() for state in states} == cells
    assert all(read_state(place.steps / "states" / state).cost.steps for state in states)
    with pytest.raises(PrunedError, match="dropped by `evergreen prune`"):
        checked(place.steps / "states" / states[0])
    with pytest.raises(StoreError, match="version 1: its weights were pruned"):
        served(place, client, "growing/1")
    assert client.get_model_version("growing", "1").tags["evergreen.pruned"] == "true"
    assert served(place, client, "growing/3").version == "3"
    assert planned(place, client, None, 1, False).goes == ()

    # the model goes on, and its report has all the rows
    arrive(grown, "five", (4, 5), seed=9)
    assert grow(grown)["learned"] == ["five"] and len(_standing(grown).line) == 5


@pytest.mark.slow
def test_killed_for_good_before_each_write_the_next_ends_it(grown: Path) -> None:
    from flows.registry.champion import CHAMPION, holder
    from flows.tracking.runs import connect

    place = Place(grown)
    client = connect(place)
    plan = planned(place, client, "growing", 0, False)
    states = {each.name for each in plan.goes if each.kind == "state"}
    cells = {state: Cells(place.steps, state).read() for state in states}
    assert len(states) > 1
    for moment in range(2 * len(states) + 3):
        process = processes().Process(target=_pruned_until, args=(str(grown), moment))
        process.start()
        process.join(120)
        now = _standing(grown)  # whole, whenever it was killed
        assert process.exitcode in (-signal.SIGKILL, 0) and now.champion
        assert all((place.steps / "states" / state / WEIGHTS).exists() for state in (now.head, now.champion.state) if state)
    assert process.exitcode == 0
    now, alias = _standing(grown), holder(client, "growing", CHAMPION)
    assert now.champion and alias and now.champion.version == str(alias.version) and states <= now.pruned and not now.unfinished
    assert not any((place.steps / "states" / state / WEIGHTS).exists() for state in states)
    assert {state: Cells(place.steps, state).read() for state in states} == cells


def _pruned_until(project: str, moment: int) -> None:
    import flows.removal.room as room

    os.environ["EVERGREEN_ROOT"] = project
    count = iter(range(100))

    def killed(real: Any) -> Any:
        def called(*words: Any, **named: Any) -> Any:
            if next(count) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **named)

        return called

    for name in ("drop", "_empty", "note"):
        setattr(room, name, killed(getattr(room, name)))
    place, journal = Place(Path(project)), history_of(Place(Path(project)), "growing")
    at: Any = SimpleNamespace(place=place, config=SimpleNamespace(name="growing"), journal=journal)
    at.standing = lambda: conclude(journal.read())
    finish(at)
    prune(place, "growing", 0, False, lambda plan: True, print)


def test_a_pruned_state_is_not_taken_for_a_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from cl.plan import plan
    from cl.run import advance, find, measured, parse_config
    from tests.conftest import COLOURS, lay_out

    lay_out(tmp_path)
    settings = yaml.safe_load(COLOURS) | {"method": {"name": "ridge", "projection": 40}}
    outline = plan(parse_config(settings, "config"), tmp_path / "data", "v")
    steps = [advance(outline, index, tmp_path / "store") for index in range(3)]
    folder = tmp_path / "store" / "states" / outline.states[2]
    weights = (folder / WEIGHTS).read_bytes()
    assert drop(folder) == len(weights) and drop(folder) == 0
    noted = numbers(folder)
    assert noted and noted.cost.stored_bytes and whole(folder) is None
    assert "dropped by `evergreen prune`" in caplog.text and "it is learned again" in caplog.text
    assert measured(outline, 2, tmp_path / "store") == steps[2] and find(outline, 2, tmp_path / "store") is None
    assert advance(outline, 2, tmp_path / "store").row == steps[2].row and (folder / WEIGHTS).read_bytes() == weights
    assert not read_state(folder).pruned


@pytest.mark.parametrize(
    "address", ["file:///etc", "/etc", "file://{root}/mlruns/artifacts/../../data", "{root}/mlruns/artifacts", "s3://other/x"]
)
def test_files_that_are_not_ours_stay_whatever_a_version_says(project: Path, address: str) -> None:
    own = project / "mlruns" / "artifacts" / "models" / "m-1" / "artifacts"
    own.mkdir(parents=True)
    (project / "mlruns" / "artifacts" / "link").symlink_to(project / "data")
    assert ours(Place(project), own.as_uri()) and ours(Place(project), str(own)) and ours(Place(project), "mlflow-artifacts://x/1/models")
    assert not ours(Place(project), address.format(root=project)) and not ours(Place(project), f"{project}/mlruns/artifacts/link")
    os.environ["EVERGREEN_ARTIFACTS"] = "s3://bucket/mine"
    with contextlib.suppress(StoreError):  # without boto3
        assert ours(Place(project), "s3://bucket/mine/1") and not ours(Place(project), "s3://bucket/mine2/1")


def test_nobody_is_asked_where_there_is_no_terminal(project: Path) -> None:
    from cl.errors import ConfigError
    from flows.cli.room import _asked

    with pytest.raises(ConfigError, match="give --yes"):
        _asked("drop?", False)
    assert _asked("drop?", True)
    with pytest.raises(StoreError, match=r"model \.\./x: it has no history"):
        prune(Place(project), "../x", 3, False, lambda plan: True, print)
