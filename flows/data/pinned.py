"""What a .dvc file pins beside what is there: what is missing or damaged is named before a new pin makes it the truth."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import LocalFileSystem
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc_data.hashfile.hash import hash_file

from cl.data import collection
from cl.errors import DataError
from cl.text import some

_LISTED = 10  # paths in one command


def missing(folder: Path) -> list[str] | None:
    """What a folder's .dvc file pins and is not there, by path from beside the folder: whole folders where all of it is gone.

    None where that cannot be said: the list of what is pinned is not in DVC's cache.
    """
    with _tree(folder) as (_, tree):
        if tree is None:
            return None
        gone = (folder.joinpath(*key) for key, *_ in tree if not folder.joinpath(*key).exists())
        return list(dict.fromkeys(_highest(path, folder).relative_to(folder.parent).as_posix() for path in gone))


def damaged(folder: Path, replaced: Path | None = None) -> list[str]:
    """What a folder's .dvc file pins, is there, and is not what was pinned though nobody means it to change, by path from beside it.

    That is a file of a session, which never changes, and a Parquet file that cannot be opened; not what lies in `replaced`. A session
    that is not pinned yet is compared with its own digest. Files whose size and time are as they were count as unchanged, for DVC
    takes their hash from then, and a pin made from it is right.

    Raises:
        DataError: a session that is not pinned yet is damaged.
    """
    broken = []
    with _tree(folder) as (repo, tree):
        if repo is None or tree is None:
            return []
        for key, _, pinned in tree:
            path = folder.joinpath(*key)
            if replaced in path.parents or not path.exists() or not (_of_session(key) or path.suffix == ".parquet"):
                continue
            if hash_file(str(path), LocalFileSystem(), pinned.name, state=repo.state)[1] != pinned and (
                _of_session(key) or _unreadable(path)
            ):
                broken.append(path.relative_to(folder.parent).as_posix())
        known = {key[:2] for key, *_ in tree}
    for place in [] if broken else [each for each in sorted(folder.iterdir()) if collection.numbered(each)]:
        for entry in collection.sessions(place):
            if (place.name, entry.folder) not in known:
                collection.read(place, entry)
    return broken


def mend(folder: Path) -> str | None:
    """What to do before a folder is pinned again, in words; None where nothing that is pinned is missing or damaged.

    Without DVC's list of what is pinned, `dvc pull` drops files that are not pinned yet, and `dvc fetch` drops none.
    """
    name, gone = pin_file(folder).name, missing(folder)
    if gone is None:
        return f"what {name} pins is not in DVC's cache, so nobody can say what is missing here: `dvc fetch {name}`, then look again"
    if not gone and (bad := damaged(folder)):
        return _broken(bad, name)
    if not gone:
        return None
    more = f", and again for {len(gone) - _LISTED} more" if len(gone) > _LISTED else ""
    return (
        f"{some(gone)}, which {name} pins, {'is' if len(gone) == 1 else 'are'} not there: `dvc checkout {shlex.join(gone[:_LISTED])}`{more}"
    )


def check_whole(folder: Path, replaced: Path | None = None) -> None:
    """Raise where pinning a folder anew would drop from its pin what is missing, or put what is damaged in the place of what is whole.

    What lies in `replaced` may be damaged, for it is about to go.

    Raises:
        DataError: names what is missing or damaged, and how it comes back.
    """
    if missing(folder):  # where that cannot be said, `pin` leaves the pin as it is
        raise DataError(f"{folder}: {mend(folder)}; or, to drop it from the pin for good, `dvc add {folder.name}`")
    if folder.is_dir() and (bad := damaged(folder, replaced)):
        raise DataError(f"{folder}: {_broken(bad, pin_file(folder).name)}")


def _broken(bad: Sequence[str], name: str) -> str:
    more = f", and again for {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    told = f"{some(bad)}, which {name} pins, {'is' if len(bad) == 1 else 'are'} not what was pinned and damaged"
    return f"{told}: `dvc checkout --force {shlex.join(bad[:_LISTED])}` brings it back{more}"


def _of_session(key: tuple[str, ...]) -> bool:
    return len(key) == 3 and collection.is_session(key[1])


def _unreadable(path: Path) -> bool:
    try:
        pq.ParquetFile(path).close()
    except (pa.ArrowException, OSError):
        return True
    return False


def _highest(path: Path, folder: Path) -> Path:
    """The highest folder above a path that is gone with it, `folder` at most."""
    above = path.parent
    return path if path == folder or above.exists() else _highest(above, folder)


@contextmanager
def _tree(folder: Path) -> Iterator[tuple[Repo | None, Any]]:
    """The DVC project, and the (key, meta, hash) of each file that is pinned; None where DVC's cache does not hold them."""
    with project(folder) as repo:
        nothing = repo is None or not pin_file(folder).exists() or not pin_file(folder).stat().st_size
        yield repo, [] if nothing else loaded(repo, pin_file(folder)).get_obj()


def pin_file(folder: Path) -> Path:
    """The .dvc file of a folder."""
    return folder.parent / f"{folder.name}.dvc"


def loaded(repo: Repo, path: Path) -> Any:
    """What a .dvc file pins, as DVC has it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return repo.stage.load_one(str(path)).outs[0]
    except (DvcException, IndexError) as error:  # the latter where it is empty
        mend = f"`git checkout {path.name}` brings it back, `dvc add {path.stem}` makes it anew"
        raise DataError(f"{path}: cannot be read ({told(error)}); {mend}") from error


@contextmanager
def project(folder: Path) -> Iterator[Repo | None]:
    """The DVC project around a folder; None where there is none. Works without git, as in an unpacked release."""
    try:
        try:
            repo = Repo(str(folder.parent))
        except SCMError:
            repo = Repo(str(folder.parent), config={"core": {"no_scm": True}})
    except NotDvcRepoError:
        yield None
        return
    with repo:
        yield repo


def told(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
