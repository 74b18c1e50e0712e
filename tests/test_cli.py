"""The command line: every mistake is one sentence and exit code 2, before anything is written; help names what there is."""

import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import prefect  # noqa: F401 - before PREFECT_API_URL is set, so that later tests do not inherit it
import pytest
import yaml
from PIL import Image

from cl.errors import ConfigError
from flows.cli.main import app, main
from flows.servers.servers import Api
from flows.settings import Place, check_writable
from tests.conftest import lay_out
from tests.make import png

EVERGREEN = Path(sys.executable).with_name("evergreen")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Answer(NamedTuple):
    """What a command leaves behind."""

    code: object
    out: str
    err: str


Evergreen = Callable[..., Answer]


@pytest.fixture
def evergreen(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Evergreen]:
    """The command line in this process, with an embedded Prefect server that never starts: no mistake may need it."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    never = Api("http://127.0.0.1:9/api", "evergreen:never-asked", lambda: None)
    monkeypatch.setattr("flows.servers.servers.embedded", lambda place: never)

    def call(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["evergreen", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return Answer(left.value.code or 0, *capfd.readouterr())

    yield call
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def config(project: Path) -> Path:
    """A project with a small data set and a config for it."""
    return lay_out(project)


def files(project: Path) -> set[Path]:
    """All but what git and Prefect keep, what tells git to pass over the rest, and the empty files that locks are held on."""
    kept = (path for path in project.rglob("*") if path.is_file() and path.name != ".gitignore")
    return {path for path in kept if not {".git", ".prefect", "locks"} & set(path.parts)}


@pytest.fixture
def refused(evergreen: Evergreen, project: Path) -> Callable[..., str]:
    """A command that ends in one sentence, and leaves every file as it was; gives the sentence."""

    def call(*words: object) -> str:
        before = files(project)
        answer = evergreen(*words)
        assert answer.code == 2 and answer.out == ""
        assert answer.err.startswith("evergreen: ") and answer.err.count("\n") == 1 and answer.err.endswith("\n"), answer.err
        assert files(project) == before and not [*project.rglob("*.part")]
        return answer.err

    return call


Refused = Callable[..., str]


def test_a_table_that_names_an_image_which_is_not_there(refused: Refused, project: Path) -> None:
    (project / "here.png").write_bytes(png(0, 0))
    (project / "birds.csv").write_text("image,label\nhere.png,red\ngone.png,blue\n")
    told = refused("data", "add", "birds", "birds.csv")
    assert "1 missing (birds.csv row 2: gone.png): add it or drop the row" in told


def test_an_image_that_is_damaged(refused: Refused, project: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "JPEG")
    for name, content in {"good.jpg": whole.getvalue(), "bad.jpg": b"\xff\xd8\xff\xe0 no picture"}.items():
        (project / "mine" / "red").mkdir(parents=True, exist_ok=True)
        (project / "mine" / "red" / name).write_bytes(content)
    told = refused("data", "add", "birds", "mine")
    assert "1 cut short (red/bad.jpg: " in told and "fetch it again or remove it" in told


def test_a_class_without_an_image(refused: Refused, project: Path) -> None:
    (project / "mine" / "red").mkdir(parents=True)
    (project / "mine" / "blue").mkdir()
    (project / "mine" / "red" / "1.png").write_bytes(png(0, 0))
    assert "1 class without an image (blue/): add images or remove the folder" in refused("data", "add", "birds", "mine")


def test_a_caption_column_that_is_not_there(refused: Refused, project: Path) -> None:
    (project / "1.png").write_bytes(png(0, 0))
    (project / "birds.csv").write_text("image,label,text\n1.png,red,a red square\n")
    told = refused("data", "add", "birds", "birds.csv", "--captions", "texts")
    assert "no column 'texts' for the captions; there are image, label, text; did you mean text?" in told


def test_a_table_whose_cells_end_elsewhere(refused: Refused, project: Path) -> None:
    (project / "birds.csv").write_text("picture;label\nhere.png;red\n")
    for words in (("data", "add", "birds", "birds.csv"), ("ingest", "birds.csv", "--session", "may")):
        assert "no image column among picture, label; name it image or path" in refused(*words)
    (project / "birds.csv").write_text("picture,label\nhere.png,red\n")
    for words in (("data", "add", "birds", "birds.csv"), ("ingest", "birds.csv", "--session", "may")):
        assert "no image column among picture, label; name it image or path" in refused(*words)


def test_a_tar_of_class_folders_says_no_label(refused: Refused, project: Path) -> None:
    with tarfile.open(project / "birds.tar", "w") as archive:
        for colour, name in enumerate(("red/1.png", "blue/1.png")):
            info = tarfile.TarInfo(name)
            info.size = len(png(colour, 0))
            archive.addfile(info, io.BytesIO(png(colour, 0)))
    told = refused("data", "add", "birds", "birds.tar")
    assert "its images lie in 2 folders and have no .cls, .txt or .json beside them" in told and "unpack it and give the folder" in told
    assert "its images lie in 2 folders and have no .cls" in refused("ingest", "birds.tar", "--session", "may")


def test_a_kind_of_file_that_is_not_read(refused: Refused, project: Path) -> None:
    for name in ("birds.rar", "birds.zip"):
        (project / name).write_bytes(b"no archive")
    assert "unknown kind of file; expected a folder or one of .parquet" in refused("ingest", "birds.rar", "--session", "may")
    assert ".tar, .zip" in refused("ingest", "birds.rar", "--session", "may")
    assert "cannot be read as .zip" in refused("data", "add", "birds", "birds.zip")


def test_a_data_set_that_exists_and_a_name_that_is_a_path(refused: Refused, config: Path) -> None:
    assert "choose another, or give --replace" in refused("data", "add", "colours", "data/colours")
    for name in ("../birds", "b" * 300):
        assert "is made of up to 100 letters, digits" in refused("data", "add", name, "data/colours")
    assert "does not exist; give a folder" in refused("data", "add", "birds", "nothing")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "best"], "method.name: unknown method 'best'; there are "),
        (["--set", "train.lrr=1"], "colours.yaml: train.lrr: unknown setting"),
        (["--set", "trian.lr=1"], "colours.yaml: trian: unknown setting"),
        (["--set", "stream.increment=0"], "stream.increment: expected a number above 0 (found 0)"),
        (["--set", "train.lr"], "override 'train.lr': expected dotted.key=value, such as train.lr=1e-4"),
        (["--set", "model.name=ViT-B-33"], "model 'ViT-B-33' is not known; did you mean ViT-B-32"),
        (["--set", "model.name=ViT-B-32"], "model 'ViT-B-32' needs weights: set pretrained to one of openai, "),
        (["--set", "model={name: ViT-B-32, pretrained: laion9}"], "pretrained 'laion9' is not known; expected one of openai, "),
        (["--set", "model.name=local-dir:/nowhere"], "there is no folder /nowhere; give the path of one with open_clip_config.json"),
        (["--set", "stream.supervision=captions"], "no training image has one; add a caption column, or set supervision: labels or none"),
        (["--set", "stream.sources.colours=birds"], "birds does not exist; `evergreen data add birds PATH` takes it in"),
        (["--data-root", "elsewhere"], "elsewhere: no data there; run `evergreen data glyphs`, or give --data-root a folder"),
        (["--data-rev", "v9"], "--data-rev v9: "),
    ],
)
def test_a_run_that_cannot_work(refused: Refused, config: Path, words: list[str], told: str) -> None:
    assert told in refused("run", "colours.yaml", *words)


def test_a_comparison_that_cannot_work(refused: Refused, config: Path) -> None:
    config.write_text(config.read_text().replace("[zero_shot, finetune]", "[zero_shot, best]"))
    assert "compare.methods: method.name: unknown method 'best'" in refused("compare", "colours.yaml")


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_cluster_whose_library_is_not_installed(kind: str) -> None:
    if importlib.util.find_spec(f"prefect_{kind}"):
        pytest.skip(f"prefect-{kind} is installed here")
    from flows.compare import runner

    with pytest.raises(ConfigError, match=rf"pip install 'evergreen-clip\[{kind}\]'"):
        runner(kind, 2, None)


def test_a_config_that_is_not_there_or_not_yaml(refused: Refused, project: Path) -> None:
    assert "birds: no such config; give the path of a YAML file, or one of glyphs" in refused("run", "birds")
    (project / "mine.yaml").write_text("name: mine\ntrain: {lr: 1\n")
    assert "mine.yaml, line 3: not valid YAML" in refused("run", "mine.yaml")


def test_an_empty_project(refused: Refused, project: Path) -> None:
    assert "no data there; run `evergreen data glyphs`" in refused("run", "glyphs")
    assert "no data there; run `evergreen data glyphs`" in refused("data", "status")


def test_a_revision_that_git_does_not_know(refused: Refused, config: Path) -> None:
    from tests.test_dvc import commit, tracked

    tracked(config.parent)
    commit(config.parent)
    told = refused("run", "colours.yaml", "--data-rev", "v9")
    assert "--data-rev v9: no such git revision; see `git log data.dvc`" in told


@pytest.mark.parametrize("command", [["run", "colours.yaml"], ["compare", "colours.yaml"], ["data", "glyphs"], ["up"], ["serve"]])
def test_results_that_cannot_be_kept(refused: Refused, config: Path, command: list[str]) -> None:
    (config.parent / "mlruns").write_text("not a folder")  # root may write anywhere, but not into a file
    told = refused(*command)
    assert "mlruns: cannot be written (File exists); make it a writable folder, or set EVERGREEN_ROOT" in told


def test_git_passes_over_what_runs_leave(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = config.parent
    monkeypatch.setenv("PREFECT_HOME", str(root / ".prefect"))
    subprocess.run(["git", "init", "-q", root], check=True)
    check_writable(Place(root))
    for folder in (root / "mlruns", root / ".prefect"):
        (folder / "anything").write_bytes(b"x")
    told = subprocess.run(["git", "-C", root, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True).stdout
    assert "colours.yaml" in told and "mlruns" not in told and ".prefect" not in told


@pytest.mark.parametrize("taken", ["--prefect-port", "--mlflow-port"])
def test_a_port_that_is_taken(refused: Refused, project: Path, taken: str) -> None:
    with socket.socket() as other, socket.socket() as free:
        other.bind(("127.0.0.1", 0))
        other.listen()
        free.bind(("127.0.0.1", 0))
        ports = {"--prefect-port": free.getsockname()[1], "--mlflow-port": free.getsockname()[1], taken: other.getsockname()[1]}
        free.close()
        told = refused("up", *(word for option in ports.items() for word in option))
    assert f"port {ports[taken]} for " in told and f"is taken by another program; stop it, or choose another with {taken}" in told


def test_a_host_that_is_not_ours(refused: Refused, project: Path) -> None:
    for host in ("192.0.2.1", "no.such.name.invalid"):
        assert f"--host {host}: not an IPv4 address or name of this machine" in refused("up", "--host", host)


def test_whoever_listens_to_others_is_warned() -> None:
    from flows.servers.servers import mlflow_server, prefect_server, warning

    assert [bool(warning(host)) for host in ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "10.0.0.7", "box")] == [False] * 3 + [
        True
    ] * 3
    for server in (prefect_server(1, "secret", host="0.0.0.0"), mlflow_server(1, "sqlite://", "file:", "0.0.0.0")):
        assert server.command[server.command.index("--host") + 1] == "0.0.0.0" and server.address == "http://127.0.0.1:1"
    asked = "MLFLOW_SERVER_ALLOWED_HOSTS"  # the guard in front asks; on this machine alone both do
    assert [mlflow_server(1, "sqlite://", "file:", host).environment.get(asked) for host in ("box", "127.0.0.1")] == ["*", None]
    assert "box" in warning("box") and "EVERGREEN_ALLOWED_HOSTS" in warning("0.0.0.0")
    for server in (prefect_server(1, "secret"), mlflow_server(1, "sqlite://", "file:")):
        assert server.command[server.command.index("--host") + 1] == "127.0.0.1"


def test_a_server_that_was_named_and_does_not_answer(refused: Refused, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    told = "PREFECT_API_URL is http://127.0.0.1:9/api, and no Prefect server answers there; start one (`evergreen up`) or unset it"
    assert told in refused("run", "colours.yaml") and told in refused("serve", "colours.yaml")
    monkeypatch.delenv("PREFECT_API_URL")
    assert "no Prefect server runs for this project; start one with `evergreen up`" in refused("serve", "colours.yaml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for words in (("up", "--prefect-port", "65111"), ("status",)):
        told = refused(*words)
        assert "http://127.0.0.1:9: MLflow's store cannot be opened" in told
        assert told.endswith("; start the server that MLFLOW_TRACKING_URI names, or unset it\n")


def test_a_schedule_that_is_none(refused: Refused, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.servers.servers.find_server", lambda place: "http://127.0.0.1:9/api")
    told = refused("serve", "colours.yaml", "--cron", "every day")
    assert '--cron every day: not a schedule; expected five fields such as "0 3 * * *"' in told


def test_a_report_of_what_was_never_learned(refused: Refused, config: Path) -> None:
    assert "none of 2 streams is learned with these settings, data and code" in refused("report", "colours.yaml")
    assert "none of 1 stream is learned" in refused("report", "colours.yaml", "--method", "finetune", "--out", "mine")


def test_a_model_is_not_pretrained_over_another(refused: Refused, project: Path) -> None:
    (project / "mine").mkdir()
    assert "mine: exists already; choose another folder" in refused("pretrain", "mine")


COMMANDS = {
    "": ["run", "update", "compare", "up", "serve", "methods", "parts", "report", "pretrain", "data"],
    "run": ["CONFIG", "--method", "--seed", "--set", "--data-root", "--data-rev"],
    "update": ["CONFIG", "--method", "--seed", "--set", "--data-root", "--rebuild", "--yes"],
    "compare": ["CONFIG", "--set", "--data-root", "--data-rev"],
    "ingest": [
        "path",
        "--session",
        "--into",
        "--label",
        "--captions",
        "--unlabelled",
        "--test-share",
        "--dry-run",
        "--commit",
        "--data-root",
    ],
    "watch": ["DIR", "--into", "--every", "--once", "--commit", "--data-root"],
    "status": ["CONFIG", "--method", "--seed", "--set", "--data-root"],
    "verify-resume": ["CONFIG", "--kills", "--seed", "--set", "--data-root", "--keep"],
    "prune": ["MODEL", "--keep", "--experiments", "--dry-run", "--yes"],
    "withdraw": ["SESSION", "--why", "--images", "--watched", "--dry-run", "--yes", "--data-root"],
    "up": ["--prefect-port", "--mlflow-port", "--host"],
    "serve": ["CONFIG", "--cron"],
    "promote": ["MODEL", "version", "--why"],
    "rollback": ["MODEL", "--to", "--why"],
    "history": ["MODEL"],
    "sessions": ["MODEL", "--config", "--data-root"],
    "retry": ["MODEL", "SESSION"],
    "skip": ["MODEL", "SESSION", "--why", "--config", "--data-root"],
    "accept": ["MODEL", "SESSION", "--why"],
    "lineage": ["MODEL", "version"],
    "advise": ["CONFIG", "--set", "--data-root", "--images", "--no-images"],
    "bisect": ["MODEL", "--set", "--class", "--domain", "--data-root", "--data-rev"],
    "diff": ["A", "B", "--on", "--labels", "--out", "--data-root", "--data-rev"],
    "predict": ["IMAGE...", "--labels", "--query", "--model", "--as-of", "--template", "--none"],
    "export": ["MODEL", "folder", "--layout", "open_clip", "hugging_face"],
    "methods": ["List the methods", "NAME"],
    "parts": ["List the parts", "KIND"],
    "init": ["Make a folder a project", "--name", "--images", "--captions", "--model", "--no-git", "--no-dvc"],
    "report": ["CONFIG", "--out", "--method", "--seed", "--set", "--data-root", "--data-rev"],
    "pretrain": ["folder", "--data-root", "--set"],
    "data": ["glyphs", "add", "status"],
    "data glyphs": ["--data-root"],
    "data add": [
        "name",
        "path",
        "--image",
        "--label",
        "--captions",
        "--domain",
        "--time",
        "--split",
        "--unlabelled",
        "--dry-run",
        "--replace",
        "--data-root",
    ],
    "data status": ["--data-root"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(evergreen: Evergreen, command: str) -> None:
    answer = evergreen(*command.split(), "--help")
    assert answer.code == 0 and answer.err == ""
    assert not [name for name in COMMANDS[command] if name not in answer.out]


def test_help_is_tested_for_every_command() -> None:
    groups = {"": app, **{f"{group.name} ": group.typer_instance for group in app.registered_groups if group.typer_instance}}
    known = {
        f"{prefix}{command.name or command.callback.__name__.replace('_', '-')}"  # type: ignore[union-attr]
        for prefix, group in groups.items()
        for command in group.registered_commands
    }
    assert known | {prefix.strip() for prefix in groups} == set(COMMANDS)


def test_methods_lists_every_method_there_is(evergreen: Evergreen) -> None:
    from cl.methods import CONFIGS

    answer = evergreen("methods")
    listed = {line.split()[0] for line in answer.out.splitlines() if line.strip()}
    assert answer.code == 0 and set(CONFIGS) <= listed


def test_parts_lists_every_part_there_is_in_its_own_words(evergreen: Evergreen) -> None:
    from cl.methods import PARTS

    answer = evergreen("parts")
    listed = {tuple(line.split()[:2]) for line in answer.out.splitlines() if line.strip()}
    assert answer.code == 0 and {(seat, kind) for seat in PARTS for kind in PARTS[seat]} <= listed
    assert "2207.09248" in answer.out
    one = evergreen("parts", "vocabulary")
    assert one.code == 0 and [word for word in ("texts", "100", "random texts per step", "session, original") if word not in one.out] == []


def test_a_method_is_printed_as_yaml_to_paste(evergreen: Evergreen) -> None:
    answer = evergreen("methods", "vr_lwf")
    tree = yaml.safe_load(answer.out)
    assert answer.code == 0 and "arXiv:2207.09248" in answer.out and tree["method"]["name"] == "recipe"


@pytest.mark.parametrize("words", [("methods", "vr_lfw"), ("parts", "vocabulry")])
def test_a_method_or_part_that_there_is_not(refused: Refused, words: tuple[str, str]) -> None:
    assert "; did you mean v" in refused(*words)


def test_data_is_taken_in_pinned_and_shown_in_a_line_each(evergreen: Evergreen, project: Path) -> None:
    from tests.test_dvc import git

    git(project, "init", "-q", ".")
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\nanalytics = false\n")
    for seed in (1, 2):
        (project / f"{seed}.png").write_bytes(png(0, seed))
    (project / "birds.csv").write_text("image,label,split\n1.png,red,train\n2.png,red,test\n")
    added = evergreen("data", "add", "birds", "birds.csv")
    *told, taken, pinned = added.err.splitlines()
    assert (added.code, added.out, taken) == (0, "", "birds: train 1, test 1 rows, 1 class")
    assert told == ["columns: image as image, label as label, split as split", "read as a CSV table"]
    assert pinned.startswith("data.dvc now pins ") and pinned.endswith("`git add data.dvc` and commit to keep this version")
    assert evergreen("data", "add", "birds", "birds.csv", "--replace").err.splitlines()[-1].startswith("data.dvc is up to date")
    shown = evergreen("data", "status")
    assert "birds" in shown.out and "(data.dvc says the same)" in shown.out and not [*project.rglob("*.part")]


def program(project: Path, *words: str) -> Answer:
    done = subprocess.run([EVERGREEN, *words], cwd=project, capture_output=True, text=True, timeout=300)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_as_a_program_a_mistake_is_one_line(config: Path) -> None:
    answer = program(config.parent, "run", "birds")
    assert (answer.code, answer.out) == (2, "")
    names = "glyphs, mini_imagenet, photos, pseudolabels, papers/..., results/..."
    assert answer.err == f"evergreen: birds: no such config; give the path of a YAML file, or one of {names}\n"


@pytest.mark.slow
def test_as_a_program_a_mistake_leaves_no_server_behind(config: Path) -> None:
    answer = program(config.parent, "run", "colours.yaml", "--set", "train.lrr=1")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1 and "train.lrr: unknown setting" in answer.err
    assert not left(config.parent)


def left(project: Path) -> list[str]:
    """Command lines of processes that still belong to a project."""
    mark, commands = f"EVERGREEN_ROOT={project}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0") and process.name != str(os.getpid()):
                commands.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # gone meanwhile
            continue
    return commands


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("run", "train.device=gpu"),
        ("update", "method={name: finetune, train: {device: gpu}}"),
        ("run", "per_session={classes 3-4: {device: gpu}}"),
        ("compare", "train.device=gpu"),
        ("compare", "compare.methods=[{name: finetune, train: {device: gpu}}]"),
    ],
)
def test_a_gpu_that_is_not_there_is_missed_before_anything(
    command: str, setting: str, config: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("flows.learn.job.job_of", lambda *_: pytest.fail("something was done"))
    told = refused(command, config, "--set", setting)
    assert told == "evergreen: train.device: gpu, and this machine has none that torch can use; auto or cpu\n"


def test_a_damaged_table_is_told_by_data_status(evergreen: Evergreen, config: Path, project: Path) -> None:
    path = project / "data" / "colours" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    shown = evergreen("data", "status")
    assert shown.code == 2 and "damaged" in shown.out and "dvc add" not in shown.out + shown.err
    assert "colours/train.parquet: damaged, no Parquet file that can be read; put them back, or take the data set in again" in shown.err


def test_a_label_may_hold_a_comma(evergreen: Evergreen, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("flows.registry.predict.served", lambda *_: SimpleNamespace(name="m", version="1"))
    monkeypatch.setattr("flows.registry.predict.classify", lambda model, images, names, *_: asked.append(names) or [[("a", 1.0)]])
    evergreen("predict", "x.png", "--labels", 'cat, "dog, wet", ,bird')
    assert asked == [["cat", "dog, wet", "bird"]]
