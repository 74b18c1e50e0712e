"""Where the images lie that a table names: beside it, in a folder of images, under the name as another system writes it."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from cl.data.layouts.reading import IMAGES, composed, is_note


class Places:
    """Finds files below `root` by the names people write: from any folder, NFC for NFD, with backslashes, without the kind of image."""

    def __init__(self, base: Path, root: Path) -> None:
        self.base, self.root = base, root
        self.last: str | None = None

    def find(self, name: str) -> str:
        """The path of the file from `base`; the name itself where there is none or it is not unique."""
        for start in (None, self.last):
            path = name if start is None else os.path.join(start, name)
            if os.path.lexists(self.base / path):
                return path
        if os.path.isabs(name) or ".." in Path(name).parts:
            return name
        plain = composed(name.replace("\\", "/").removeprefix("./"))
        known = self.index.get(plain) or self.index.get(Path(plain).name if "/" not in plain else plain) or []
        if len(known) != 1:
            return name
        path = os.path.relpath(self.root / known[0], self.base)
        folder = path[: -len(name)].rstrip("/") if path.endswith("/" + name) else None
        self.last = folder or self.last
        return path

    @cached_property
    def index(self) -> Mapping[str, Sequence[str]]:
        """Every end of the path of every image, with and without its kind, and the paths that end so."""
        ends: dict[str, list[str]] = {}
        for path in images(self.root):
            parts = composed(path).split("/")
            for start in range(len(parts)):
                end = "/".join(parts[start:])
                for each in (end, end.rpartition(".")[0]):
                    ends.setdefault(each, []).append(path)
        return ends


def images(root: Path) -> list[str]:
    """The images below a folder, as paths from it; what is hidden is left out."""
    paths = []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        place = os.path.relpath(parent, root)
        names = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in IMAGES and not is_note(Path(name))]
        paths += [name if place == "." else f"{place}/{name}" for name in names]
    return sorted(paths)
