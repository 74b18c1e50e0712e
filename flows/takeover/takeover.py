"""What earlier releases learned, taken over: from their steps on disk and their versions in MLflow to the facts that open a history.

Nothing is learned for it and no weight is read. States keep the names they have, whatever those mean to this release.

- The line is the champion's. A version that the gate refused and that the champion grew out of all the same is refused and kept;
  the sessions of one that it did not grow out of are set aside, and so are those that a person was still to be asked about.
- Who was champion comes in the order of MLflow's notes, so that a rollback finds what it found before; sessions that a rollback left
  behind stay so. Without a champion there is no line: what was refused is set aside, and what nobody judged waits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient

from cl.errors import StoreError
from cl.store.store import NOTE, WEIGHTS
from cl.text import some
from flows.history.entries import Champion, Fact, Learned, Opened, Pruned, Verdict
from flows.line.entered import name_of
from flows.line.work import Work
from flows.registry.champion import CHAMPION, history, holder, versions_of
from flows.registry.changes import Change
from flows.takeover.held import Held, add
from flows.takeover.old_rows import carry
from flows.takeover.past import past
from flows.takeover.proof import Proof, prove
from flows.watch import watch

_ASIDE = {
    "waiting": "nobody had answered yet when its history was taken over: ",
    "promoted": "the champion of now did not grow out of it: ",
}


def take_over(at: Work, client: MlflowClient) -> list[Fact]:
    """Facts to open a history with; none where there is nothing that it could begin with. Scores go to their states on the way.

    Raises:
        StoreError: a state or a step of the champion's is not there, or it learned every session at once.
    """
    versions = sorted(versions_of(client, name_of(at)), key=lambda each: int(each.version))
    if not versions:
        return []
    changes, held = _changes(at, client), Held()
    champion, crowned = (changes[-1].after if changes else None), {each.after for each in changes}
    if champion:
        told = "what was learned before it had a history is taken over, and not learned again; the data are read once, to see what they are"
        watch().tell(f"{at.config.name}: {told}")
    for version in versions:
        known = past(client, version)
        if known and (known.word or known.version in crowned if champion else known.word == "refused"):
            add(at, held, known, wanted=known.version == champion)
    if not held.learned or (champion and champion not in held.ends):
        return []
    line = held.line(held.ends[champion] if champion else None)
    missing = _missing(at, held.learned)
    if gone := [learned for learned in line if learned.state in missing]:
        names, states = some([learned.session for learned in gone]), some([learned.state for learned in gone])
        raise StoreError(
            f"model {name_of(at)}: states that its champion grew through, those of {names}, are not in {at.place.steps / 'states'} "
            f"({states}); bring them back from the machine that learned them, or give the config another name"
        )
    proof = prove(at, held, line)
    if champion:
        carry(at, held, held.pasts[champion], line, proof)
    line = [replace(learned, identity=proof.identity) for learned in line]
    return list(_facts(at, held, line, changes, proof, missing))


def _changes(at: Work, client: MlflowClient) -> list[Change]:
    """Who became champion, in order; the last is who is."""
    name = name_of(at)
    now, changes = holder(client, name, CHAMPION), [each for each in history(at.place, client, name) if each.alias == CHAMPION]
    if now and (not changes or changes[-1].after != str(now.version)):
        before = changes[-1].after if changes else None
        changes.append(Change("", "", CHAMPION, before, str(now.version), "it was the champion in MLflow", "done"))
    return changes


def _missing(at: Work, states: Mapping[str, Learned]) -> set[str]:
    folders = {state: at.place.steps / "states" / state for state in states}
    return {state for state, folder in folders.items() if not ((folder / NOTE).is_file() and (folder / WEIGHTS).is_file())}


def _facts(at: Work, held: Held, line: Sequence[Learned], changes: Sequence[Change], proof: Proof, missing: set[str]) -> Iterator[Fact]:
    yield _opened(at, held, line, proof)
    proven = {learned.state: learned for learned in line}
    for state, learned in held.learned.items():
        yield proven.get(state, learned)
    once = {each.state for change in changes if change.after in held.ends for each in held.line(held.ends[change.after])}
    yield from (_aside(held, state) for state in held.learned if state not in once)
    if missing:
        yield Pruned(phase="done", states=tuple(sorted(missing)))
    for each in changes:
        own = held.ends.get(each.after)
        yield Champion(version=each.after, state=own, before=each.before, why=each.why, by=each.who, how="taken_over", happened=each.when)
    crowned = {held.ends[each.after]: each for each in changes if each.after in held.ends}
    yield from (_inside(held, learned.state, crowned.get(learned.state)) for learned in line)


def _opened(at: Work, held: Held, line: Sequence[Learned], proof: Proof) -> Opened:
    last = held.of[line[-1].state] if line else next(reversed(held.of.values()))
    stream = last.config["stream"]
    return Opened(
        model=name_of(at),
        stream={"kind": stream["kind"], "sources": sorted(source["path"] for source in stream["sources"].values())},
        base=last.base or at.base,
        taken_over={
            "how": "verified" if proof.holds else "by name only",
            "why": proof.why,
            "states": len(line),
            "release": last.versions.get("evergreen-clip", ""),
            "code": last.code,
        },
    )


def _verdict(held: Held, state: str, **said: Any) -> Verdict:
    """What the gate said of a state: in its own version, or together with the session that its version ends with."""
    version, learned = held.of[state], held.learned[state]
    last = held.learned[held.ends[version.version]]
    reason = version.reason if last.state == state else f"together with {last.session}: {version.reason}"
    own = version.version if last.state == state else None
    known = {"state": state, "session": learned.session, "version": own, "bounds": version.bounds, "reason": reason}
    return Verdict(**known | {"happened": version.judged} | said)


def _aside(held: Held, state: str) -> Verdict:
    said = _verdict(held, state, word="expired" if held.of[state].word == "waiting" else "refused", by="the gate")
    return replace(said, reason=_ASIDE.get(held.of[state].word, "") + said.reason)


def _inside(held: Held, state: str, crowned: Change | None) -> Verdict:
    word = held.of[state].word
    if crowned and word != "promoted":  # somebody has decided otherwise
        return _verdict(held, state, word="accepted", reason=crowned.why, by=crowned.who, happened=crowned.when)
    if word == "refused":
        return _verdict(held, state, word="refused", policy="keep", by="the gate")
    return _verdict(held, state, word="accepted", by="the gate")
