"""Settings and commands as MLflow keeps them: flat names with short texts."""

import json
import shlex
from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text.

    >>> flat({"train": {"lr": 0.1}, "seed": 3})
    {'train.lr': '0.1', 'seed': '3'}
    """
    result: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return result


def paths_of(flat: Mapping[str, str]) -> list[str]:
    """Where the sources of a stream lie, by the flat names of its settings; a source's own name may hold dots.

    >>> paths_of({"stream.kind": "collection", "stream.sources.in.box.path": "inbox", "stream.sources.in.box.limit": "null"})
    ['inbox']
    """
    return [value for name, value in flat.items() if name.startswith("stream.sources.") and name.endswith(".path")]


def brief(command: str) -> str:
    """A command with its config's name alone: MLflow shows what comes after a slash.

    >>> brief("evergreen run /home/ann/birds.yaml --set seed=1")
    'evergreen run birds.yaml --set seed=1'
    """
    words = shlex.split(command)
    return shlex.join([*words[:2], *(word.rsplit("/", 1)[-1] for word in words[2:3]), *words[3:]])
