"""What DVC keeps of a session beside the working copy: objects in its cache and its default remote, and who still names them."""

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from cl.errors import DataError
from cl.store.holds import Wanted, holds
from flows.addresses import shown
from flows.data.pinned import loaded, pin_file, project, told


def objects_of(folder: Path, session: str) -> set[str]:
    """The hashes of the files of a session ("inbox/0002-may") in whatever version of a data root this repository has pinned."""
    with project(folder) as repo:
        if repo is None:
            return set()
        trees = [_tree(repo, value) for value in {*_revisions(folder).values(), *_now(repo, folder)}]
        return {each["md5"] for tree in trees for each in tree if each["relpath"].startswith(f"{session}/")}


def holding(folder: Path, wanted: Wanted) -> set[str]:
    """The objects in DVC's cache, beside those of the present pin, that hold an image."""
    with project(folder) as repo:
        if repo is None:
            return set()
        live = {each["md5"] for value in _now(repo, folder) for each in _tree(repo, value)}
        cache = repo.cache.local
        every = (oid for oid in cache.all() if not oid.endswith(".dir") and oid not in live)
        return {oid for oid in every if holds(Path(cache.oid_to_path(oid)), wanted)}


def named_by(folder: Path, objects: Collection[str]) -> list[str]:
    """The git revisions whose pin names one of the objects, the latest first."""
    with project(folder) as repo:
        if repo is None:
            return []
        pinned = {value: {each["md5"] for each in _tree(repo, value)} & set(objects) for value in set(_revisions(folder).values())}
        return [rev[:10] for rev, value in _revisions(folder).items() if pinned[value]]


def remove(folder: Path, objects: Collection[str]) -> list[str]:
    """Remove objects that the present pin does not name from DVC's cache and its default remote; says what could not be.

    Raises:
        DataError: the cache cannot be written.
    """
    notes: list[str] = []
    with project(folder) as repo:
        if repo is None or not objects:
            return notes
        live = {each["md5"] for value in _now(repo, folder) for each in _tree(repo, value)}
        gone = sorted(set(objects) - live)
        try:
            _delete(repo.cache.local, gone)
        except OSError as error:
            raise DataError(f"{repo.cache.local.path}: cannot be written ({error.strerror}); make it writable") from error
        if name := repo.config["core"].get("remote"):
            address = shown(str(repo.config["remote"].get(name, {}).get("url")))
            try:
                _delete(repo.cloud.get_remote_odb(name), gone)
            except (DvcException, ImportError, OSError) as error:
                notes.append(f"the remote at {address} still has it ({told(error)}): once it can be reached, start the command again")
        notes += [
            f"remote {other} is not the default one, and was not looked at: `dvc gc --workspace --cloud --remote {other}` leaves there, "
            "and in the cache here, what the present pin names and nothing else"
            for other in sorted(repo.config["remote"])
            if other != name
        ]
    return notes


def _delete(store: Any, objects: list[str]) -> None:
    for oid in objects:
        path = store.oid_to_path(oid)
        if store.fs.exists(path):
            store.fs.remove(path)


def _now(repo: Repo, folder: Path) -> list[str]:
    file = pin_file(folder)
    return [str(loaded(repo, file).hash_info.value)] if file.exists() and file.stat().st_size else []


def _tree(repo: Repo, value: str) -> list[dict[str, str]]:
    """The files of a pinned folder, by DVC's list of them; none where that list is not in the cache."""
    try:
        return list(json.loads(Path(repo.cache.local.oid_to_path(value)).read_bytes()))
    except (OSError, ValueError):
        return []


def _revisions(folder: Path) -> dict[str, str]:
    """What is pinned at each git revision that changed the .dvc file, on whatever branch, the latest first."""
    name = pin_file(folder).name
    pins = {}
    for rev in _git(folder, "log", "--all", "--format=%H", "--", name).split():
        try:
            pins[rev] = str(yaml.safe_load(_git(folder, "show", f"{rev}:./{name}"))["outs"][0]["md5"])
        except (yaml.YAMLError, KeyError, IndexError, TypeError):  # it was removed there, or is no such file
            continue
    return pins


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder.parent, capture_output=True, text=True).stdout
