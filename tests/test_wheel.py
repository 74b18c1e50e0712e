"""What a release holds: one name at the top of site-packages, all that runs and no more; and that it works where there is no clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from PIL import Image

import evergreen_clip
from tests import make
from tests.serving import serving
from tests.test_readme import READMES

ROOT = Path(__file__).parents[1]


def own(folder: str) -> set[str]:
    """The files of a package in the clone that have to be in the wheel."""
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.suffix != ".pth" and not (path.suffix == ".md" and path.parent == ROOT / folder)
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])))


def test_a_wheel_holds_what_runs_and_nothing_else_below_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        assert packed.read("evergreen_clip.pth").decode().split() == ["evergreen_clip"]
    inside = {f"evergreen_clip/{name}" for folder in ("cl", "flows") for name in own(folder)} | own("evergreen_clip")
    assert names == inside | {"evergreen_clip.pth"}
    assert {"evergreen_clip/cl/py.typed", "evergreen_clip/flows/py.typed"} <= names  # type checkers read what is annotated
    assert not {Path(name).suffix for name in names} & {".pyc", ".xz", ".db", ".part", ".parquet", ".log"}
    assert [name for name in names if name.endswith(".md")] == ["evergreen_clip/cl/assets/glyph_base/README.md"]


def test_its_metadata_say_what_it_is_and_what_it_starts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (folder,) = {name.partition("/")[0] for name in packed.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(packed.read(f"{folder}/METADATA").decode())
        started = packed.read(f"{folder}/entry_points.txt").decode()
        assert packed.read(f"{folder}/licenses/LICENSE").startswith((ROOT / "LICENSE").read_bytes()[:40])
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == ("evergreen-clip", "Apache-2.0", ">=3.11")
    assert metadata["Version"] == re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]  # type: ignore[index]
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    for name in re.findall(r"= evergreen_clip:(\w+)", started):
        assert callable(getattr(evergreen_clip, name))
    assert len(re.findall("=", started)) == 2


def test_a_source_release_holds_what_the_repository_does_and_nothing_that_was_made(tmp_path: Path) -> None:
    built = Path(next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path))))
    with tarfile.open(built) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    made = {".venv", "data", "dist", "build", ".prefect", "mlruns", ".git"}
    assert not made & {name.partition("/")[0] for name in names}
    assert own("cl") | own("flows") | {"evergreen_clip/path.pth", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock"} <= names
    assert not [name for name in names if name.endswith(".pyc")]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.parent.name))
def test_files_of_the_packages_that_readmes_name_are_in_the_wheel(path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    for named in re.findall(r"(?<![\w/.])((?:cl|flows)/[\w./-]+\.(?:py|yaml))", path.read_text()):
        assert f"evergreen_clip/{named}" in names, named


def test_the_deployments_for_work_pools_come_with_the_package() -> None:
    assert yaml.safe_load((files("flows") / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("name", ["cl", "flows"])
def test_another_package_of_the_same_name_is_told_and_not_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evergreen_clip.clash() == ""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    assert evergreen_clip.clash([*sys.path, str(tmp_path)]) == ""  # ours comes first
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        evergreen_clip.main()
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"evergreen: Python finds another `{name}` ({tmp_path / name}) before Evergreen's own") and told.count("\n") == 1


def test_flows_refuses_a_foreign_cl(tmp_path: Path) -> None:
    (tmp_path / "cl").mkdir()
    (tmp_path / "cl" / "__init__.py").touch()
    found_first = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    done = subprocess.run([sys.executable, "-c", "import flows"], env=found_first, cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: `cl` is another package's" in done.stderr


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`evergreen` of a new environment, which has the wheel, and the libraries of this one but not its Evergreen."""
    place = tmp_path_factory.mktemp("new")
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(
        sysconfig.get_path("purelib")
    )  # a .pth that lies there, such as an editable install's, is not read
    asked = [place / "bin" / "python", "-c", "import cl, flows, importlib.metadata as m; print(cl.__file__, m.version('evergreen-clip'))"]
    printed = subprocess.run(asked, cwd=place, capture_output=True, text=True, check=True).stdout.split()
    assert Path(printed[0]).parents[1] == packages / "evergreen_clip"
    return place / "bin" / "evergreen"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds photographs, and a package that only looks like ours."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    for colour in (0, 1):
        (tmp_path / "photos" / make.COLOURS[colour]).mkdir(parents=True)
        for row in range(6):
            (tmp_path / "photos" / make.COLOURS[colour] / f"{row}.png").write_bytes(make.png(colour, row))
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('the project is no place for code')")
    return tmp_path


@pytest.mark.slow
def test_from_an_empty_folder_to_a_champion_with_the_wheel_alone(program: Path, project: Path) -> None:
    def evergreen(*words: str) -> str:
        done = subprocess.run([program, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    evergreen("init", "--name", "shapes", "--images", "photos", "--model", "tiny")
    assert (project / ".evergreen").exists() and (project / ".dvc").is_dir()
    assert "pins" in evergreen("data", "glyphs")
    small = ("--set", "train.max_steps=2", "--set", "train.batch_size=8")
    assert "is champion" in evergreen("run", "glyphs", *small)
    picture = project / "letter.png"
    Image.new("RGB", (32, 32), "white").save(picture)
    with serving(program, project):
        assert "letter.png" in evergreen("predict", "letter.png", "--labels", "Σ,Ω", "--model", "glyphs")
        assert "shapes" in evergreen("update", "shapes.yaml")  # by the server of `up`
    assert "learned" in evergreen("status")


CPU = {**os.environ, "PIP_EXTRA_INDEX_URL": "http://127.0.0.1:9/cpu"}


@pytest.mark.parametrize(("words", "cuda"), [((), True), (("TORCH=cpu",), False)])
def test_the_lock_can_be_installed_without_cuda(words: tuple[str, ...], cuda: bool) -> None:
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", *words], cwd=ROOT, capture_output=True, text=True, check=True, env=CPU
    ).stdout
    (line,) = [line for line in told.splitlines() if "/dev/stdin" in line]
    names = subprocess.run(line.rpartition("|")[0], shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert any(name.startswith("torch==") for name in names)
    assert any(name.startswith("nvidia-") for name in names) == any(name.startswith("triton") for name in names) == cuda


def test_a_torch_that_cannot_be_imported_is_told_before_the_environment_counts_as_ready(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\ncase $* in *torch*) exit 1;; *) cat > /dev/null;; esac\n")
    python.chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", "demo", "TORCH=cpu"], cwd=tmp_path, capture_output=True, text=True, env=CPU, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "gave a build of it that wants CUDA" in done.stderr and not (tmp_path / ".venv" / ".ready").exists()


def test_a_lock_without_cuda_wants_the_index_that_has_such_builds() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PIP_EXTRA_INDEX_URL"}
    done = subprocess.run(["make", "--dry-run", "demo", "TORCH=cpu"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "PIP_EXTRA_INDEX_URL" in done.stderr
    address = re.search(r"--extra-index-url (https://\S+/cpu)", (ROOT / "README.md").read_text())
    assert address  # where the message sends people
