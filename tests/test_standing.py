"""What follows from a history: each rule, and each moment at which a process may be killed."""

import json
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from flows.history.conclude import conclude
from flows.history.entries import Abandoned, Accept, Adopted, Pruned, Rebuilt, Retry, Skipped, Withdrawn
from flows.history.standing import Holder, rows
from tests.telling import BOUNDS, Step, bad, began, crown, entries, good, learn, learned, says, stand

TWO = [good("1", "a", None, "1"), good("2", "b", "a", "2")]
PAIR = [
    good("1", "a", None, "1"),
    bad("2", "b", "a", "2", policy="retry_with_next"),
    began("3", "d", "b", "2", "3"),
    learned("3", "d", "b"),
]
WITHOUT_1 = [learned("2", "x", None)]

SCENARIOS: list[tuple[str, Sequence[Step], dict[str, Any]]] = [
    # heads (spec 3.3) and sessions one by one (3.2)
    ("nothing but its opening", [], {"head": None, "champion": None, "sessions": {}, "last": 1}),
    (
        "a promoted session is the head and the champion",
        [good("1", "a", None, "1")],
        {"head": "a", "champion": ("1", "a"), "confirmed": True, "sessions": {"1": "learned"}, "unpublished": None},
    ),
    (
        "an accepted session is the head, and what a version is made of should nothing come after it",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "accepted")],
        {"head": "b", "champion": ("1", "a"), "unpublished": "b", "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "the last accepted of several is promoted, the refused one between them is aside",
        [
            learn("1", "a"),
            says("1", "a", "accepted"),
            bad("2", "b", "a", "1"),
            learn("3", "c", "a"),
            says("3", "c", "promoted", "2"),
            crown("2", "c"),
        ],
        {
            "head": "c",
            "line": ["1", "3"],
            "champion": ("2", "c"),
            "unpublished": None,
            "sessions": {"1": "learned", "2": "set aside", "3": "learned"},
        },
    ),
    (
        "the last is refused, so the accepted one before it becomes a version",
        [learn("1", "a"), says("1", "a", "accepted"), bad("2", "b", "a", "1")],
        {"head": "a", "champion": None, "unpublished": "a", "sessions": {"1": "learned", "2": "set aside"}},
    ),
    (
        "and once it is one, nothing is left to do",
        [learn("1", "a"), says("1", "a", "accepted"), bad("2", "b", "a", "1"), says("1", "a", "promoted", "2"), crown("2", "a")],
        {"head": "a", "champion": ("2", "a"), "unpublished": None},
    ),
    (
        "a refused session is set aside, with its reason, and the head stays",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2")],
        {
            "head": "a",
            "champion": ("1", "a"),
            "sessions": {"1": "learned", "2": "set aside"},
            "why": {"2": "because of 2"},
            "with_next": (),
        },
    ),
    (
        "under `keep` a refused session is in the line and the head, and not the champion",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2", policy="keep")],
        {"head": "b", "champion": ("1", "a"), "unpublished": None, "sessions": {"1": "learned", "2": "refused, kept"}},
    ),
    (
        "under `keep` the next grows from it and may become champion with it",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2", policy="keep"), good("3", "c", "b", "3")],
        {"head": "c", "line": ["1", "2", "3"], "champion": ("3", "c"), "sessions": {"1": "learned", "2": "refused, kept", "3": "learned"}},
    ),
    (
        "under `keep` an accepted one before a refused last becomes champion without moving the head",
        [
            learn("1", "a"),
            says("1", "a", "accepted"),
            bad("2", "b", "a", "1", policy="keep"),
            says("1", "a", "promoted", "2"),
            crown("2", "a"),
        ],
        {"head": "b", "champion": ("2", "a"), "unpublished": None, "sessions": {"1": "learned", "2": "refused, kept"}},
    ),
    (
        "and so it does where its alias is told of alone",
        [learn("1", "a"), says("1", "a", "accepted"), bad("2", "b", "a", "1", policy="keep"), crown("2", "a", "gate", "intent")],
        {"head": "b", "champion": ("2", "a"), "confirmed": False, "sessions": {"1": "learned", "2": "refused, kept"}},
    ),
    (
        "a verdict on what grew from elsewhere promotes nothing, and its session is learned again",
        [TWO, crown("1", "a", "rollback"), learn("3", "c", "b"), says("3", "c", "promoted", "3")],
        {"head": "a", "champion": ("1", "a"), "sessions": {"1": "learned", "2": "rolled back", "3": "to retry"}},
    ),
    (
        "a verdict that says itself that it is stale does the same",
        [TWO, crown("1", "a", "rollback"), learn("3", "c", "b"), says("3", "c", "stale")],
        {"head": "a", "sessions": {"1": "learned", "2": "rolled back", "3": "to retry"}, "why": {"3": "because of 3"}},
    ),
    # rollback and promote by hand (3.3, 3.4)
    (
        "a rollback takes the sessions out of the line, and says why",
        [TWO, crown("1", "a", "rollback", why="owls")],
        {
            "head": "a",
            "champion": ("1", "a"),
            "sessions": {"1": "learned", "2": "rolled back"},
            "why": {"2": "owls"},
            "champions": ("1", "2", "1"),
        },
    ),
    (
        "after it the next session grows from the champion, and the rolled back stay out",
        [TWO, crown("1", "a", "rollback"), good("3", "c", "a", "3")],
        {"head": "c", "line": ["1", "3"], "sessions": {"1": "learned", "2": "rolled back", "3": "learned"}},
    ),
    (
        "who goes forth again has them back",
        [TWO, crown("1", "a", "rollback"), crown("2", "b", "promote")],
        {"head": "b", "champion": ("2", "b"), "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "a rollback also takes what was accepted and is no version",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "accepted"), crown("1", "a", "rollback", why="owls")],
        {"head": "a", "champion": ("1", "a"), "unpublished": None, "sessions": {"1": "learned", "2": "rolled back"}},
    ),
    (
        "a refused version that a person promotes takes its line with it, and what came since leaves",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), good("3", "c", "a", "3"), crown("2", "b", "promote", why="I know better")],
        {"head": "b", "line": ["1", "2"], "sessions": {"1": "learned", "2": "learned", "3": "rolled back"}, "why": {"3": "I know better"}},
    ),
    (
        "a version of no known line is champion, and the line what it was",
        [good("1", "a", None, "1"), crown("9", None, "outside_confirmed")],
        {"head": "a", "champion": ("9", None), "unpublished": None, "sessions": {"1": "learned"}},
    ),
    (
        "a version that `run` made is promoted with what it has learned",
        [
            good("1", "a", None, "1"),
            Adopted(version="5", line=(learned("1", "p"), learned("9", "q", "p"))),
            crown("5", "q", "promote"),
        ],
        {"head": "q", "line": ["1", "9"], "champion": ("5", "q"), "sessions": {"1": "learned", "9": "learned"}},
    ),
    (
        "adopted and not promoted it changes nothing",
        [good("1", "a", None, "1"), Adopted(version="5", line=(learned("1", "p"), learned("9", "q", "p")))],
        {"head": "a", "champion": ("1", "a"), "sessions": {"1": "learned"}},
    ),
    # waiting for a person (3.5)
    (
        "while a person is asked, the head stays",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "waiting", "2")],
        {"head": "a", "waiting": "b", "sessions": {"1": "learned", "2": "waiting for a person"}},
    ),
    (
        "who agrees makes it champion",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "waiting", "2"), says("2", "b", "promoted", "2", by="Ann")],
        {"head": "b", "waiting": None, "champion": ("2", "b"), "confirmed": False},
    ),
    (
        "who says no sets it aside",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "waiting", "2"), says("2", "b", "declined", "2", by="Ann")],
        {"head": "a", "waiting": None, "sessions": {"1": "learned", "2": "set aside"}},
    ),
    (
        "who does not answer sets it aside too, under any policy",
        [good("1", "a", None, "1"), learn("2", "b", "a"), says("2", "b", "waiting"), says("2", "b", "expired", policy="keep")],
        {"head": "a", "waiting": None, "sessions": {"1": "learned", "2": "set aside"}},
    ),
    (
        "a rollback meanwhile leaves nothing to ask about, and its session is learned again",
        [TWO, learn("3", "c", "b"), says("3", "c", "waiting", "3"), crown("1", "a", "rollback")],
        {"head": "a", "waiting": None, "sessions": {"1": "learned", "2": "rolled back", "3": "to retry"}},
    ),
    (
        "should the head come back, it is asked again",
        [TWO, learn("3", "c", "b"), says("3", "c", "waiting", "3"), crown("1", "a", "rollback"), crown("2", "b", "promote")],
        {"head": "b", "waiting": "c", "sessions": {"1": "learned", "2": "learned", "3": "waiting for a person"}},
    ),
    # accept (3.6)
    (
        "accepted by a person, a candidate that stands on the head is the head, and is to become a version's",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), Accept(session="2", why="it is fine", by="Ann")],
        {
            "head": "b",
            "unpublished": "b",
            "overruled": set(),
            "sessions": {"1": "learned", "2": "learned"},
            "why": {"2": "Ann accepts it: it is fine"},
        },
    ),
    (
        "one whose parent is no longer the head is learned again and the gate overruled, so that nothing learned since is dropped",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), good("3", "c", "a", "3"), Accept(session="2", by="Ann")],
        {"head": "c", "line": ["1", "3"], "overruled": {"2"}, "sessions": {"1": "learned", "2": "to retry", "3": "learned"}},
    ),
    (
        "which holds until it is learned",
        [
            good("1", "a", None, "1"),
            bad("2", "b", "a", "2"),
            good("3", "c", "a", "3"),
            Accept(session="2", by="Ann"),
            learn("2", "d", "c"),
        ],
        {"overruled": {"2"}, "unjudged": "d", "sessions": {"1": "learned", "2": "not judged", "3": "learned"}},
    ),
    (
        "and no longer",
        [
            good("1", "a", None, "1"),
            bad("2", "b", "a", "2"),
            good("3", "c", "a", "3"),
            Accept(session="2", by="Ann"),
            good("2", "d", "c", "4"),
        ],
        {"head": "d", "line": ["1", "3", "2"], "overruled": set(), "sessions": {"1": "learned", "2": "learned", "3": "learned"}},
    ),
    (
        "accepted while it is learned, it is gone on with, and the gate overruled then",
        [good("1", "a", None, "1"), began("2", "b", "a"), Accept(session="2", by="Ann")],
        {"open": "b", "overruled": {"2"}, "sessions": {"1": "learned", "2": "begun"}},
    ),
    (
        "a session that was kept though refused is learned once a person accepts it",
        [bad("1", "a", None, "1", policy="keep"), Accept(session="1", by="Ann")],
        {"head": "a", "unpublished": "a", "sessions": {"1": "learned"}},
    ),
    # retry, skip (3.7, 3.8)
    (
        "a session set aside that somebody wants is to retry",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), Retry(session="2", by="Ann")],
        {"head": "a", "sessions": {"1": "learned", "2": "to retry"}, "why": {"2": "Ann wants it"}},
    ),
    (
        "judged again without being learned again, it is the head where it stands on it",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), Retry(session="2"), says("2", "b", "promoted", "2"), crown("2", "b")],
        {"head": "b", "champion": ("2", "b"), "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "or refused again",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), Retry(session="2"), says("2", "b", "refused", "2")],
        {"head": "a", "sessions": {"1": "learned", "2": "set aside"}},
    ),
    (
        "a rolled back session comes in again by retry alone",
        [TWO, crown("1", "a", "rollback"), Retry(session="2"), says("2", "b", "promoted", "2"), crown("2", "b")],
        {"head": "b", "champion": ("2", "b"), "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "accepted once, rolled back, wanted again and then refused, it is refused",
        [TWO, crown("1", "a", "rollback"), Retry(session="2"), says("2", "b", "refused", policy="keep")],
        {"head": "b", "champion": ("1", "a"), "unpublished": None, "sessions": {"1": "learned", "2": "refused, kept"}},
    ),
    (
        "a session may be skipped before it is learned",
        [good("1", "a", None, "1"), Skipped(session="2", why="blurred", by="Ann")],
        {"head": "a", "sessions": {"1": "learned", "2": "skipped"}, "why": {"2": "blurred"}},
    ),
    (
        "or after it was set aside, and comes back by retry",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), Skipped(session="2"), Retry(session="2"), good("2", "b", "a", "2")],
        {"head": "b", "sessions": {"1": "learned", "2": "learned"}},
    ),
    # retry_with_next (3.7)
    (
        "under `retry_with_next` a refused session is tried once more together with the next",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2", policy="retry_with_next")],
        {"head": "a", "with_next": ("2",), "sessions": {"1": "learned", "2": "set aside"}},
    ),
    ("two states in order get one verdict, that of the last", [PAIR], {"head": "a", "unjudged": "d", "partway": None}),
    (
        "accepted, both are learned",
        [PAIR, says("3", "d", "promoted", "3"), crown("3", "d")],
        {"head": "d", "line": ["1", "2", "3"], "with_next": (), "sessions": {"1": "learned", "2": "learned", "3": "learned"}},
    ),
    (
        "refused, the first has had its turn and the next is tried alone",
        [PAIR, says("3", "d", "refused", "3", policy="retry_with_next")],
        {
            "head": "a",
            "with_next": (),
            "sessions": {"1": "learned", "2": "set aside", "3": "to retry"},
            "why": {"3": "refused together with 2; alone next"},
        },
    ),
    (
        "refused alone as well, it goes with the one after it",
        [PAIR, says("3", "d", "refused", policy="retry_with_next"), bad("3", "e", "a", "4", policy="retry_with_next")],
        {"head": "a", "with_next": ("3",), "sessions": {"1": "learned", "2": "set aside", "3": "set aside"}},
    ),
    (
        "a person is asked about both",
        [PAIR, says("3", "d", "waiting", "3")],
        {"waiting": "d", "with_next": (), "sessions": {"1": "learned", "2": "waiting for a person", "3": "waiting for a person"}},
    ),
    (
        "and if the head moves meanwhile, the first keeps its turn",
        [
            TWO,
            bad("3", "c", "b", "3", policy="retry_with_next"),
            learn("4", "d", "c", "3", "4"),
            says("4", "d", "waiting", "4"),
            crown("1", "a", "rollback"),
        ],
        {"head": "a", "with_next": ("3",), "sessions": {"1": "learned", "2": "rolled back", "3": "set aside", "4": "to retry"}},
    ),
    (
        "nobody answering sets both aside",
        [PAIR, says("3", "d", "waiting", "3"), says("3", "d", "expired", "3", policy="retry_with_next")],
        {"head": "a", "with_next": (), "sessions": {"1": "learned", "2": "set aside", "3": "set aside"}},
    ),
    (
        "the first is learned anew where the head has moved, and is not judged before the next is learned",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2", policy="retry_with_next"), learn("2", "b", "a", "2", "3")],
        {"head": "a", "unjudged": None, "partway": "b", "open": None},
    ),
    # the alias (3.10)
    ("a promotion whose alias may not have followed says so", [learn("1", "a"), says("1", "a", "promoted", "1")], {"confirmed": False}),
    ("so does a rollback", [TWO, crown("1", "a", "rollback", "intent")], {"head": "a", "confirmed": False, "champion": ("1", "a")}),
    ("and says when it has", [TWO, crown("1", "a", "rollback", "intent"), crown("1", "a", "rollback")], {"confirmed": True}),
    # rebuild (4.7)
    (
        "a rebuild takes the line's place; who is not in it was rolled back",
        [TWO, bad("3", "c", "b", "3"), Rebuilt(version="4", state="y", line=(learned("2", "x"), learned("4", "y", "x")))],
        {"head": "y", "line": ["2", "4"], "champion": ("4", "y"), "confirmed": False}
        | {"sessions": {"1": "rolled back", "2": "learned", "3": "set aside", "4": "learned"}},
    ),
    # withdraw (4.6), prune (4.5)
    (
        "a withdrawal that is intended bars the versions at once, and is unfinished",
        [TWO, Withdrawn(phase="intent", session="1", versions=("1", "2"), into="x", line=tuple(WITHOUT_1))],
        {"head": "b", "barred": {"1", "2"}, "tombstones": {"1"}, "unfinished": 1, "sessions": {"1": "withdrawn", "2": "learned"}},
    ),
    (
        "the state without it takes the head's place as a version",
        [
            TWO,
            Withdrawn(phase="intent", session="1", versions=("1", "2"), into="x", line=tuple(WITHOUT_1)),
            crown("3", "x", "withdraw", "intent"),
        ],
        {"head": "x", "line": ["2"], "champion": ("3", "x"), "confirmed": False, "sessions": {"1": "withdrawn", "2": "learned"}},
    ),
    (
        "and when the data are gone it is done",
        [
            TWO,
            Withdrawn(phase="intent", session="1", versions=("1", "2"), into="x", line=tuple(WITHOUT_1)),
            crown("3", "x", "withdraw"),
            Withdrawn(phase="done", session="1", versions=("1", "2"), into="x"),
            good("3", "c", "x", "4"),
        ],
        {
            "head": "c",
            "line": ["2", "3"],
            "unfinished": 0,
            "tombstones": {"1"},
            "sessions": {"1": "withdrawn", "2": "learned", "3": "learned"},
        },
    ),
    (
        "which takes nothing back that was learned meanwhile",
        [
            TWO,
            Withdrawn(phase="intent", session="1", into="x", line=tuple(WITHOUT_1)),
            crown("3", "x", "withdraw"),
            good("3", "c", "x", "4"),
            Withdrawn(phase="done", session="1", into="x"),
        ],
        {"head": "c", "line": ["2", "3"], "champion": ("4", "c"), "sessions": {"1": "withdrawn", "2": "learned", "3": "learned"}},
    ),
    (
        "a withdrawal where nobody is champion moves the head when it is done",
        [
            learn("1", "a"),
            says("1", "a", "accepted"),
            learn("2", "b", "a"),
            says("2", "b", "accepted"),
            Withdrawn(phase="intent", session="1", into="x", line=tuple(WITHOUT_1)),
            Withdrawn(phase="done", session="1", into="x"),
        ],
        {"head": "x", "line": ["2"], "champion": None, "unpublished": "x", "sessions": {"1": "withdrawn", "2": "learned"}},
    ),
    (
        "trained weights hold it until the rebuild",
        [TWO, Withdrawn(phase="intent", session="1", versions=("1", "2")), Withdrawn(phase="done", session="1", versions=("1", "2"))],
        {"head": "b", "line": ["1", "2"], "barred": {"1", "2"}, "sessions": {"1": "withdrawn", "2": "learned"}},
    ),
    (
        "of some images, the session stays",
        [
            TWO,
            Withdrawn(
                phase="done", session="1", images=("7.png",), versions=("1",), into="z", line=(learned("1", "y"), learned("2", "z", "y"))
            ),
        ],
        {"head": "z", "line": ["1", "2"], "tombstones": set(), "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "what is withdrawn is not learned again, whoever wants it",
        [
            good("1", "a", None, "1"),
            bad("2", "b", "a", "2"),
            Withdrawn(phase="done", session="2", versions=("2",)),
            Retry(session="2"),
            Accept(session="2"),
            says("2", "b", "promoted", "2"),
        ],
        {"head": "a", "champion": ("1", "a"), "overruled": set(), "sessions": {"1": "learned", "2": "withdrawn"}},
    ),
    (
        "pruned states have no weights and stay learned",
        [TWO, Pruned(phase="intent", states=("a",), versions=("1",))],
        {"head": "b", "pruned": {"a"}, "pruned_versions": {"1"}, "unfinished": 1, "sessions": {"1": "learned", "2": "learned"}},
    ),
    (
        "and are no longer pruned once they are learned again",
        [
            good("1", "a", None, "1"),
            bad("2", "b", "a", "2"),
            Pruned(phase="intent", states=("b",)),
            Pruned(phase="done", states=("b",)),
            learn("2", "b", "a"),
        ],
        {"head": "a", "pruned": set(), "unfinished": 0, "unjudged": "b"},
    ),
    # what an earlier release learned (1)
    (
        "taken over: a refused version inside the champion is kept, one outside is aside",
        [
            learned("1", "a"),
            says("1", "a", "promoted", "1"),
            learned("2", "b", "a"),
            says("2", "b", "refused", "2", policy="keep"),
            learned("3", "c", "b"),
            says("3", "c", "promoted", "3"),
            crown("3", "c", "taken_over"),
            learned("4", "d", "c"),
            says("4", "d", "refused", "4"),
        ],
        {"head": "c", "champion": ("3", "c"), "confirmed": True}
        | {"sessions": {"1": "learned", "2": "refused, kept", "3": "learned", "4": "set aside"}},
    ),
    (
        "taken over by name only: no verdict, and the champion says what is learned",
        [learned("1", "a"), learned("2", "b", "a"), crown("2", "b", "taken_over")],
        {"head": "b", "unjudged": None, "sessions": {"1": "learned", "2": "learned"}},
    ),
    # killed (5): the same session under every prefix
    ("killed before B: nothing is open", [TWO], {"open": None, "unjudged": None, "unpublished": None, "confirmed": True}),
    (
        "killed after B, W or C: it is open, by the recipe that it began with",
        [TWO, began("3", "c", "b")],
        {"open": "c", "head": "b", "unjudged": None, "sessions": {"1": "learned", "2": "learned", "3": "begun"}},
    ),
    (
        "and is abandoned where the head has moved",
        [TWO, began("3", "c", "b"), crown("1", "a", "rollback"), Abandoned(state="c", session="3", why="the head moved")],
        {"open": None, "head": "a", "sessions": {"1": "learned", "2": "rolled back", "3": "to retry"}, "why": {"3": "the head moved"}},
    ),
    (
        "killed after L, or V: it is to be judged",
        [TWO, learn("3", "c", "b")],
        {"open": None, "unjudged": "c", "head": "b", "sessions": {"1": "learned", "2": "learned", "3": "not judged"}},
    ),
    (
        "and is learned again where the head has moved",
        [TWO, learn("3", "c", "b"), crown("1", "a", "rollback")],
        {"unjudged": None, "partway": None, "sessions": {"1": "learned", "2": "rolled back", "3": "to retry"}},
    ),
    (
        "killed after D: the alias is to follow",
        [TWO, learn("3", "c", "b"), says("3", "c", "promoted", "3")],
        {"open": None, "unjudged": None, "unpublished": None, "head": "c", "champion": ("3", "c"), "confirmed": False},
    ),
    ("killed after A: it has followed, and is seen to", [TWO, good("3", "c", "b", "3")], {"head": "c", "confirmed": True}),
    (
        "killed in the first of two that go together: it is open",
        [TWO, began("3", "c", "b", "3", "4")],
        {"open": "c", "partway": None, "sessions": {"1": "learned", "2": "learned", "3": "begun"}},
    ),
    (
        "killed between the two: the first is there and the second is to come",
        [TWO, learn("3", "c", "b", "3", "4")],
        {"open": None, "partway": "c", "unjudged": None},
    ),
    (
        "killed in the second: it is open",
        [TWO, learn("3", "c", "b", "3", "4"), began("4", "d", "c", "3", "4")],
        {"open": "d", "partway": None, "unjudged": None},
    ),
    (
        "killed after the second: it is to be judged, for both",
        [TWO, learn("3", "c", "b", "3", "4"), learn("4", "d", "c", "3", "4")],
        {"open": None, "partway": None, "unjudged": "d"},
    ),
    (
        "another session is begun before the first is learned: that one is learned again",
        [TWO, began("3", "c", "b"), began("4", "d", "b")],
        {"open": "d", "sessions": {"1": "learned", "2": "learned", "3": "to retry", "4": "begun"}},
    ),
    (
        "two sessions that teach the same share a state, and each has its own verdict",
        [good("1", "a", None, "1"), bad("2", "b", "a", "2"), bad("3", "b", "a", "2"), Retry(session="2"), says("2", "b", "promoted", "2")],
        {"head": "b", "line": ["1", "2"], "sessions": {"1": "learned", "2": "learned", "3": "set aside"}},
    ),
]


@pytest.mark.parametrize(("steps", "expected"), [pytest.param(steps, expected, id=name) for name, steps, expected in SCENARIOS])
def test_scenario(steps: Sequence[Step], expected: dict[str, Any]) -> None:
    standing = stand(*steps)
    for what, value in expected.items():
        match what:
            case "line":
                assert [each.session for each in standing.line] == value
            case "sessions":
                assert {name: str(status.word) for name, status in standing.sessions.items()} == value
            case "why":
                assert {name: standing.sessions[name].why for name in value} == value
            case "unfinished":
                assert len(standing.unfinished) == value
            case "open" | "unjudged" | "partway" | "waiting":
                assert getattr(getattr(standing, what), "state", None) == value, what
            case _:
                assert getattr(standing, what) == value, what


def test_a_verdict_is_remembered_by_bounds_and_champion() -> None:
    standing = stand(good("1", "a", None, "1"), [*learn("2", "b", "a"), says("2", "b", "refused", "2", champion_version="1")])
    assert (asked := standing.judged("b", "1", BOUNDS)) and asked.word == "refused"
    assert (
        standing.judged("b", "2", BOUNDS) is None
        and standing.judged("b", "1", {"drop": 0.1}) is None
        and standing.judged("a", "1", BOUNDS) is None
    )
    waits = stand([*learn("1", "a"), says("1", "a", "waiting", "1")])
    assert waits.judged("a", None, BOUNDS) is None, "a person's word is still to come"


def test_the_line_says_what_is_known_in_order_of_arrival() -> None:
    owls, larks = ("owl", ("an owl",)), ("lark", ("a lark",))
    standing = stand(
        [learned("1", "a", None, classes=(owls,)), says("1", "a", "promoted", "1")],
        [learned("2", "b", "a", classes=(("cat", ("a cat",)),)), says("2", "b", "refused", "2")],
        [learned("3", "c", "a", classes=(larks,)), says("3", "c", "promoted", "3")],
    )
    assert standing.vocabulary == (owls, larks)


def test_people_see_each_session_once_and_what_waits_last() -> None:
    standing = stand(good("1", "a" * 40, None, "1"), bad("2", "b" * 40, "a" * 40, "2"))
    assert rows(standing, ["1", "2", "3"]) == [
        ("1", "learned", "because of 1", "2026-01-01T00:00:04", "aaaaaaaa"),
        ("2", "set aside", "because of 2", "2026-01-01T00:00:08", "bbbbbbbb"),
        ("3", "waiting", "", "", ""),
    ]


def test_nobody_can_change_what_was_concluded() -> None:
    standing = stand(good("1", "a", None, "1"))
    with pytest.raises(AttributeError):
        standing.champion = Holder("2", None)  # type: ignore[misc]
    assert len(fields(standing)) == 19


def test_a_thousand_sessions_are_concluded_in_no_time() -> None:
    steps = [good(f"s{number}", f"k{number}", f"k{number - 1}" if number else None, f"{number}") for number in range(1000)]
    written = [replace(entry, fields=json.loads(json.dumps(entry.fields))) for entry in entries(steps)]
    begun = time.perf_counter()
    standing = conclude(written)
    assert time.perf_counter() - begun < 1 and len(standing.line) == 1000 and standing.champion == ("999", "k999")
