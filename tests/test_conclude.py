"""Any order of entries, and an update that is killed anywhere: what holds whatever was written."""

import random
from collections.abc import Callable, Sequence

import pytest

from flows.history.conclude import conclude
from flows.history.entries import Abandoned, Accept, Adopted, Fact, Learned, Policy, Pruned, Rebuilt, Retry, Skipped, Withdrawn
from flows.history.standing import Standing, Word
from tests.telling import began, crown, entries, learned, says, stand


def any_fact(chance: random.Random, standing: Standing, number: int) -> Fact:
    """One of all that can be written of a few sessions, whether or not anybody would."""
    session, states = f"s{chance.randrange(6)}", [*standing.tree]
    parent, state, version = chance.choice([None, *states[-4:], standing.head, standing.head]), f"k{number}", f"{number}"
    made: list[Fact] = [
        began(session, state, parent, *chance.choice([(), (), (f"s{chance.randrange(6)}", session), (session, "s9")])),
        learned(session, state, parent),
        Skipped(session=session),
        Retry(session=session),
        Accept(session=session),
        Rebuilt(version=version, state=state, line=(learned(session, state),)),
        Adopted(version=version, line=(learned(session, state),)),
        Pruned(phase=chance.choice(["intent", "done"]), states=tuple(states[:1])),
    ]
    if chance.random() < 0.1:
        made.append(Withdrawn(phase=chance.choice(["intent", "done"]), session=session, into=state, line=(learned("s8", state),)))
        made.append(Withdrawn(phase=chance.choice(["intent", "done"]), session=session, images=chance.choice([None, ("x",)])))
    if standing.open:  # what was begun is mostly gone on with
        made += [learned(standing.open.session, standing.open.state, standing.open.parent)] * 8
        made += [Abandoned(state=standing.open.state, session=standing.open.session)]
    if states:
        state = chance.choice(states)
        judged = chance.choice([state, states[-1], states[-1]])
        words = ["accepted", "promoted", "promoted", "refused", "waiting", "stale", "expired", "declined"]
        policy = chance.choice(["set_aside", "retry_with_next", "keep"])
        made += [says(standing.tree[judged].session, judged, chance.choice(words), chance.choice([None, version]), policy=policy)] * 10
        how = chance.choice(["gate", "promote", "rollback", "withdraw", "outside_confirmed", "rebuild"])
        made += [crown(version, chance.choice([state, state, None]), how, chance.choice(["intent", "done"]))] * 2
        if standing.champion:
            made.append(crown(*standing.champion, how))
    return chance.choice(made)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_written_in_whatever_order_each_session_is_one_thing_and_the_line_leads_to_the_head(seed: int) -> None:
    chance = random.Random(seed)
    steps: list[Fact] = []
    for number in range(60):
        steps.append(any_fact(chance, conclude(entries(steps)), number))
        stand(steps)
    assert conclude(entries(steps)) == conclude(entries(steps))


Gate = Callable[[Sequence[str]], bool]  # whether a line of sessions is let through


def update(standing: Standing, waiting: Sequence[str], gate: Gate, policy: Policy, recipe: int, version: str) -> Fact | None:
    """What an update writes next, by the standing alone; None: it has nothing left to do."""
    if not standing.confirmed and standing.champion:
        return crown(*standing.champion)  # the alias has followed
    if standing.open:
        began, told = standing.open, Abandoned(state=standing.open.state, session=standing.open.session, why="the head moved")
        return learned(began.session, began.state, began.parent) if standing.grows(began) else told
    names = {name: standing.sessions[name].word if name in standing.sessions else Word.AGAIN for name in waiting}
    left = [name for name, word in names.items() if word == Word.AGAIN]
    if candidate := standing.unjudged:
        line = [*(each.session for each in standing.line), *standing.gos.get(candidate.state, (candidate.session,))]
        word = "refused" if not gate(line) else "accepted" if left else "promoted"
        return says(candidate.session, candidate.state, word, version if word != "accepted" else None, policy=policy)
    if left:
        return _next(standing, left[0], recipe)
    if state := standing.unpublished:
        return says(standing.tree[state].session, state, "promoted", version)
    return None


def _next(standing: Standing, session: str, recipe: int) -> Fact:
    parent, go = standing.head, ()
    if standing.partway:
        parent, go = standing.partway.state, (standing.partway.session, session)
    elif standing.with_next:
        mate, go = standing.with_next[0], (standing.with_next[0], session)
        state = standing.sessions[mate].state
        if state is None or standing.tree[state].parent != standing.head:
            return began(mate, f"{parent}/{mate}:{recipe}", parent, *go)
        parent = state
    return began(session, f"{parent}/{session}:{recipe}", parent, *go)


GATES: dict[str, tuple[Gate, Policy, list[str], dict[str, str]]] = {
    "every session is fine": (lambda line: True, "set_aside", ["1", "2", "3", "4"], {}),
    "the second is poisoned": (lambda line: "2" not in line, "set_aside", ["1", "3", "4"], {"2": "set aside"}),
    "the first is poisoned": (lambda line: "1" not in line, "set_aside", ["2", "3", "4"], {"1": "set aside"}),
    "the last is poisoned": (lambda line: "4" not in line, "set_aside", ["1", "2", "3"], {"4": "set aside"}),
    "all are": (lambda line: False, "set_aside", [], dict.fromkeys("1234", "set aside")),
    "the second is poisoned and kept": (lambda line: "2" not in line, "keep", ["1", "2", "3", "4"], dict.fromkeys("234", "refused, kept")),
    "the second needs the third": (lambda line: "2" not in line or "3" in line, "retry_with_next", ["1", "2", "3", "4"], {}),
    "the third does not help it": (lambda line: "2" not in line, "retry_with_next", ["1", "3", "4"], {"2": "set aside"}),
    "two are poisoned": (lambda line: not {"2", "3"} & {*line}, "retry_with_next", ["1", "4"], {"2": "set aside", "3": "set aside"}),
}


@pytest.mark.parametrize("case", GATES)
@pytest.mark.parametrize("kills", [0.0, 0.5])
def test_an_update_killed_anywhere_and_started_again_by_other_settings_learns_all_once(case: str, kills: float) -> None:
    """Killed between any two entries; what was begun is gone on with by the settings that it began with."""
    gate, policy, line, others = GATES[case]
    for seed in range(4):
        chance, recipe, steps = random.Random(seed), 0, list[Fact]()
        while said := update(standing := stand(steps), "1234", gate, policy, recipe, f"{len(steps)}"):
            steps.append(said)
            recipe += chance.random() < kills
            assert len(steps) < 60
        assert [each.session for each in standing.line] == line
        assert {name: str(status.word) for name, status in standing.sessions.items()} == dict.fromkeys("1234", "learned") | others
        taught = [(each.session, each.parent) for each in steps if isinstance(each, Learned)]
        assert len(taught) == len(set(taught)), "nothing is learned twice"
        assert standing.confirmed and (standing.champion is not None) == (bool(line) and gate(line[:1]))
        good = [name for number, name in enumerate(line) if gate(line[: number + 1])]
        assert standing.champion is None or standing.tree[standing.champion.state or ""].session == good[-1]
