"""A project from nothing: what marks its folder, git and DVC around it, and a first config with a word on each setting."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from cl.disk.durable import beside
from cl.errors import ConfigError, StoreError
from cl.text import did_you_mean
from flows.project import identity
from flows.settings import Place, quiet

Text = Literal["labels", "captions"]
IGNORED = ("/data/", "/mlruns/", "/.prefect/", "/.dvc-remote/")
METHODS: dict[Text, str] = {"labels": "vr_lwf", "captions": "mod_x"}

_CONFIG = """\
# How {name} learns. `evergreen ingest FOLDER --session NAME` brings a session, `evergreen update {file}` learns what waits.
name: {name}
model: {model}  # an open_clip name and tag, hf-hub:ORG/REPO or local-dir:PATH; tiny is random, to try things
stream:
  kind: collection             # sessions in the order in which they came
  sources: {{inbox: inbox}}      # data/inbox, where `evergreen ingest` puts them
  template: "a photo of a {{}}." # the sentence that a class name stands in
  candidates: seen             # a test image is asked among all classes learned so far, as `evergreen predict` asks
method: {method: <22} # `evergreen methods` lists them all; replay keeps old images, finetune shows what forgetting is
train:
  epochs: 3                    # passes over each session
  batch_size: 64
  # lr: 1.0e-5                 # default: by method and size of the model
gate:                          # what a new version must hold before it takes the champion's place
  drop: 0.05                   # no set may lose more than this share; it takes some hundred test images a session to tell
  # approval: true             # and a person agrees
# update: {{policy: samples, samples: 1000}}  # wait for so many new images; default: learn each session
"""


@dataclass(frozen=True)
class Wish:
    """What a person wants of a project."""

    name: str
    model: str = "ViT-B-32:openai"  # an open_clip name with its tag, or another name that `model.name` takes
    text: Text = "labels"
    git: bool = True
    dvc: bool = True


def init(root: Path, wish: Wish) -> list[str]:
    """Make `root` a project; what is there already stays as it is. Says in a line each what was made.

    Raises:
        ConfigError: the name cannot be a model's, or a config of that name is there.
        StoreError: the folder cannot be written, or git or DVC refuses.
    """
    config = root / f"{wish.name}.yaml"
    text = written(wish)
    if config.exists():
        go_on = f"evergreen ingest IMAGES --session first; evergreen update {config.name}"
        raise ConfigError(f"{config}: is there already; give another --name, or go on: {go_on}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / "data").mkdir(exist_ok=True)
        identity(Place(root))
        notes = _versioned(root, wish)
        _ignore(root / ".gitignore")
        _put(config, text)
    except OSError as error:
        raise StoreError(f"{root}: no project can be made here ({error.strerror or error}); choose a folder that you may write") from error
    return [f"{root} is a project now", *notes, f"{config.name} says how it learns"]


def written(wish: Wish) -> str:
    """The config as text, checked.

    Raises:
        ConfigError: the name cannot be a model's.
    """
    from cl.run_config import parse_config  # brings torch: seconds, before the first question

    name, _, tag = wish.model.partition(":")
    whole = not tag or name in ("hf-hub", "local-dir")
    model = f'{{name: "{wish.model}"}}' if whole else f"{{name: {name}, pretrained: {tag}}}"
    if not re.fullmatch(r"[\w./:@+-]+", wish.model):
        raise ConfigError(f"model {wish.model!r:.100}: expected an open_clip name and its tag, such as ViT-B-32:openai")
    _known(name, tag, whole)
    if not re.fullmatch(r"\w[\w.-]{0,99}", wish.name):
        raise ConfigError(f"{wish.name!r:.130}: a project's name is made of up to 100 letters, digits, dots, dashes and underscores")
    text = _CONFIG.format(name=wish.name, file=f"{wish.name}.yaml", model=model, method=METHODS[wish.text])
    parse_config(yaml.safe_load(text), wish.name)
    return text


def _known(name: str, tag: str, whole: bool) -> None:
    """Raise where a model is none that open_clip or Evergreen has; folders and hubs are asked when it is learned.

    Raises:
        ConfigError: names what there is.
    """
    if name in ("glyph_base", "tiny", "hf-hub", "local-dir"):
        return
    import open_clip  # seconds, before the first question

    models = open_clip.list_models()
    if name not in models:
        raise ConfigError(f"model {name!r:.100}: no model of open_clip; {did_you_mean(name, ['glyph_base', 'tiny', *models])}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if whole or tag not in tags:
        raise ConfigError(f"model {name}: give it a tag, as {name}:TAG; {did_you_mean(tag, tags)}")


def _versioned(root: Path, wish: Wish) -> list[str]:
    if not wish.dvc:
        return ["nothing versions the data: no run can be told from what data it came (`dvc init` changes that)"]
    inside = _git_root(root)
    made = []
    if wish.git and inside is None and shutil.which("git"):
        _run(root, "git", "init", "--quiet")
        inside, made = root, ["git"]
    if not (root / ".dvc").exists():
        _dvc(root, scm=wish.git and inside is not None, below=inside is not None and inside != root)
        made.append("DVC")
    history = "" if wish.git and inside is not None else "; there is no git, so there are no older versions to go back to"
    if inside == root:
        history = "; nothing is committed yet: git add -A && git commit -m start"
    return [f"{' and '.join(made)} version it{history}"] if made else []


def _dvc(root: Path, *, scm: bool, below: bool) -> None:
    from dvc.exceptions import DvcException  # this and the next: a second, where DVC is not wanted
    from dvc.repo import Repo

    quiet()  # dvc sets up its own logger when it is imported
    try:
        with Repo.init(str(root), no_scm=not scm, subdir=scm and below) as repo, repo.config.edit() as settings:
            settings["core"] |= {"analytics": False, "check_update": False}
    except DvcException as error:
        raise StoreError(f"{root}: DVC cannot begin here ({error}); mend that, or leave it out: --no-dvc") from error


def _git_root(root: Path) -> Path | None:
    if not shutil.which("git"):
        return None
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    return Path(asked.stdout.strip()) if asked.returncode == 0 else None


def _run(root: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise StoreError(f"{root}: `{' '.join(command)}` failed ({done.stderr.strip().splitlines()[-1:]}); or leave it out: --no-git")


def _ignore(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if missing := [line for line in IGNORED if line not in lines and line.rstrip("/") not in lines]:
        _put(file, "\n".join([*lines, *missing]) + "\n")


def _put(file: Path, text: str) -> None:
    with beside(file) as part:
        part.write_text(text, encoding="utf-8")
