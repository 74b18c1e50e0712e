"""Data versions, through DVC: which data a run sees, older versions beside the working copy, and new data under a pin."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLockFileCorruptedError, RWLockFileFormatError
from dvc.scm import RevError, SCMError
from scmrepo.exceptions import SCMError as GitError

from cl.errors import DataError
from flows.addresses import shown
from flows.data.digest import digest, place_of
from flows.data.pinned import loaded, missing, pin_file, project, told
from flows.settings import Place, quiet

_PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Version:
    """The data a run sees.

    `digest` is DVC's hash of the folder as it is ("<32 hex>.dir"), or where DVC does not watch over the folder the
    hash of its files. `pinned`: a .dvc file, at `rev` where one is given, holds this very digest.
    """

    folder: str
    digest: str
    source: Literal["dvc", "files"]
    pinned: bool
    rev: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def version(folder: Path) -> Version:
    """The version of a folder as it stands, changed files included.

    Raises:
        DataError: there is no such folder, or it is empty.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        pinned = f"`dvc pull {pin_file(folder).name}` brings what {pin_file(folder).name} pins, " if pin_file(folder).exists() else ""
        made = "run `evergreen data glyphs`, or give --data-root a folder that holds data sets"
        raise DataError(f"{folder}: no data there; {pinned}{'or ' if pinned else ''}{made}")
    with project(folder) as repo:
        if repo is None or not pin_file(folder).exists():
            return Version(str(folder), digest(folder, place_of(folder, Place.find().runs)), "files", pinned=False)
        out = loaded(repo, pin_file(folder))
        now = str(out.get_hash().value)
        return Version(str(folder), now, "dvc", pinned=now == out.hash_info.value)


def materialise(folder: Path, rev: str, versions: Path) -> Version:
    """What `folder` was at a git revision, as a folder of `versions` named by its digest; the working copy stays as it is.

    Raises:
        DataError: no git revision of that name, no data pinned at it, or its files are in no cache and no remote.
    """
    with _explained(folder, rev):
        root = Path(Repo(str(folder.parent)).root_dir)
        with Repo.open(str(root), rev=rev) as past:  # its files lie in git, whose root is "/"
            where = past.fs.join(past.root_dir, pin_file(folder).relative_to(root).as_posix())
            value = str(past.stage.load_one(where).outs[0].hash_info.value)
        target = versions / value.removesuffix(".dir")
        if not target.exists():
            part = versions / f".{target.name}.{uuid.uuid4().hex}.part"
            versions.mkdir(parents=True, exist_ok=True)
            try:
                DVCFileSystem(str(root), rev=rev).get(folder.relative_to(root).as_posix(), str(part), recursive=True)
                _appear(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return Version(str(target), value, "dvc", pinned=True, rev=rev)


def pin(folder: Path) -> tuple[str | None, str | None]:
    """Put a folder under its .dvc file (`dvc add`); returns the digests pinned before and after, None without DVC.

    Waits while another process holds DVC's lock. Where what is pinned may be missing, see `mend`, the pin stays: None after.

    Raises:
        DataError: DVC refuses, or its lock is not free after ten minutes.
    """
    quiet()  # dvc sets up its own logger when it is imported, and gives hints about git
    with project(folder) as repo:
        if repo is None:
            return None, None
        before = _pinned(repo, pin_file(folder))
        if before and missing(folder) is None and version(folder).digest != before:
            return before, None
        try:
            stage = _patiently(repo, lambda: repo.add(str(folder)))[0]
        except DvcException as error:
            raise DataError(f"{folder}: DVC cannot take it in ({told(error)}); see `dvc doctor`") from error
        return before, str(stage.outs[0].hash_info.value)


def push(folder: Path) -> str | None:
    """Send what a folder's .dvc file pins to the default remote; returns its address, None where there is no remote.

    Raises:
        DataError: it cannot be reached, its driver is not installed, or DVC's lock is not free after ten minutes.
    """
    address = remote(folder)
    if address is None:
        return None
    quiet()
    with project(folder) as repo:
        assert repo is not None  # it has a remote
        try:
            _patiently(repo, lambda: repo.push(targets=[str(pin_file(folder))]))
        except (DvcException, ImportError, OSError) as error:
            raise DataError(f"{folder.name} cannot be sent to {address} ({told(error)}); later: `dvc push`") from error
    return address


def committable(folder: Path) -> None:
    """Raise where `commit` could not work.

    Raises:
        DataError: there is no DVC project or no git repository around the folder.
    """
    with project(folder) as repo:
        if repo is None or not folder.parent.is_dir() or _git(folder, "rev-parse", "--git-dir").returncode:
            raise DataError(f"{folder}: there is no git repository with DVC around it, so {pin_file(folder).name} cannot be committed")


def commit(folder: Path, message: str) -> bool:
    """Commit a folder's .dvc file to git, and nothing else; False where git has it already.

    Raises:
        DataError: git refuses.
    """
    name = pin_file(folder).name
    if not _git(folder, "status", "--porcelain", "--", name).stdout.strip():
        return False
    for words in (("add", "--", name), ("commit", "-q", "-m", message, "--", name)):
        done = _git(folder, *words)
        if done.returncode:
            raise DataError(f"{name}: is pinned, and git does not commit it ({' '.join(done.stderr.split())})")
    return True


def remote(folder: Path) -> str | None:
    """Where `dvc push` would send the data: the default remote's address as people may see it, None without one."""
    with project(folder) as repo:
        name = repo and repo.config["core"].get("remote")
        address = repo.config["remote"].get(name, {}).get("url") if repo and name else None
        return shown(str(address)) if address else None


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=folder.parent, capture_output=True, text=True)


def _pinned(repo: Repo, path: Path) -> str | None:
    """The digest that a .dvc file holds, None where there is none."""
    if path.exists() and not path.stat().st_size:  # left by who was killed: DVC writes it in place
        path.unlink()
    return str(loaded(repo, path).hash_info.value) if path.exists() else None


def _patiently(repo: Repo, action: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except (RWLockFileCorruptedError, RWLockFileFormatError):  # left by who was killed: DVC writes it in place, and then always refuses
            Path(str(repo.tmp_dir), RWLOCK_FILE).unlink(missing_ok=True)
        except LockError:  # after three seconds of DVC's own patience
            if time.monotonic() > deadline:
                raise


@contextmanager
def _explained(folder: Path, rev: str) -> Iterator[None]:
    try:
        yield
    except (RevError, GitError) as error:  # the second where nothing was ever committed
        raise DataError(f"--data-rev {rev}: no such git revision; see `git log {pin_file(folder).name}`") from error
    except (NotDvcRepoError, SCMError) as error:
        raise DataError(f"--data-rev {rev}: {folder} is in no git repository with DVC, so it has no older versions") from error
    except ImportError as error:
        extra = told(error).partition(" ")[0]  # "s3 is supported, but requires 'dvc-s3' to be installed"
        raise DataError(f"--data-rev {rev}: {told(error)}; run pip install 'dvc[{extra}]'") from error
    except (DvcException, FileNotFoundError, ValueError) as error:
        raise DataError(f"--data-rev {rev}: {folder.name} cannot be fetched at this revision ({told(error)})") from error


def _appear(part: Path, target: Path) -> None:
    try:
        os.replace(part, target)
    except OSError:  # another process was faster, with the same bytes
        if not target.exists():
            raise
