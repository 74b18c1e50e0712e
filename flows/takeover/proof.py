"""Whether a line that an earlier release learned is what it says: its names, computed again from settings, data and base model."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cl.errors import EvergreenError
from cl.learning.defaults import settled
from cl.methods import Method
from cl.plan import base_model, build_method, recipe_key, state_key
from cl.run_config import RunConfig, parse_config, train_config
from cl.store.first_names import start_name, state_name
from cl.text import some
from flows.history.entries import Learned
from flows.line.work import Work
from flows.takeover.held import Held


class Proof(NamedTuple):
    """Whether it holds, why not, what this release calls what learned the line ("": by another name), and 0.1.0's name of the start."""

    holds: bool
    why: str
    identity: str = ""
    start: str = ""


def prove(at: Work, held: Held, line: Sequence[Learned]) -> Proof:
    """By the names of this release and by those of 0.1.0."""
    if not line:
        return Proof(False, "there is no champion")
    if gone := [learned.session for learned in line if held.seen[learned.state] is None]:
        return Proof(False, f"the data of {some(gone)} are not here any more, or not as they were")
    last = held.of[line[-1].state]
    try:
        config = parse_config(last.config, f"the settings of version {last.version}")
        method = build_method(config.method.located(at.root), base_model(config.model, True), config.seed)
        base, sources = base_model(config.model, True).digest(), method.sources()
        identity = recipe_key(config, base, method)
        names = list(_now(held, line, identity, method))
        if names == [learned.state for learned in line]:
            return Proof(True, "", identity)
        why = "settings, data or what computes differ from those of then"
    except EvergreenError as error:
        base, sources, why = at.base, (), f"its settings are none of this release's: {error}"
    start = start_name(base, last.config, last.code, sources)
    if list(_first(held, line, start)) == [learned.state for learned in line]:
        return Proof(True, "", "", start)
    return Proof(False, why)


def _now(held: Held, line: Sequence[Learned], start: str, method: Method) -> Iterator[str]:
    configs: dict[str, RunConfig] = {}
    for learned in line:
        version, seen = held.of[learned.state], held.seen[learned.state]
        assert seen
        if version.version not in configs:
            configs[version.version] = parse_config(version.config, f"the settings of version {version.version}")
        start = state_key(start, seen.digest, settled(train_config(configs[version.version], seen), method))
        yield start


def _first(held: Held, line: Sequence[Learned], start: str) -> Iterator[str]:
    for learned in line:
        seen = held.seen[learned.state]
        assert seen
        start = state_name(start, seen.first, held.of[learned.state].config, learned.session, learned.number)
        yield start
