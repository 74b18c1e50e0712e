"""A line goes on with the defaults it was begun with: what nobody set does not change because a release chose another value."""

import json
from collections.abc import Mapping
from typing import Any

from cl.run_config import parse_config


def kept(now: dict[str, Any], head: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings of now, as a session of this line is learned under them, and what of them is said.

    Args:
        now: all settings, those that nobody set among them.
        head: the same, of the session that the head learned last.

    >>> before = {"name": "x", "model": {"name": "tiny"}, "method": {"name": "ridge", "penalty": 0.1, "projection": None, "folds": 2}}
    >>> now = before | {"method": {"name": "ridge", "penalty": "auto", "projection": 300, "folds": 2}}
    >>> settings, _ = kept(now | {"stream": {"kind": "listed", "sources": {"s": "s"}, "sessions": [{"source": "s"}]}}, before)
    >>> settings["method"]["penalty"], settings["method"]["projection"]
    (0.1, 300)
    """
    method, begun = parse_config(now, "the settings of now").method, head["method"]
    if begun["name"] != method.called():
        return now, []
    unset = {name: value for name, value in method.former.items() if name not in method.changed()}
    held = {name: value for name, value in unset.items() if name in begun and begun[name] == value}
    if not held:
        return now, []
    told, newer = (", ".join(f"{name} {json.dumps(values[name])}" for name in held) for values in (held, now["method"]))
    said = (
        f"{method.called()}: goes on with {told}, as this line began; this release begins with {newer}, and "
        "`evergreen update --rebuild` learns it so"
    )
    return now | {"method": now["method"] | held}, [said]
