"""A person's word before a model becomes champion: the flow waits on its page in Prefect, and goes on by the answer."""

import os
from typing import Any, NamedTuple

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from flows.settings import EMBEDDED


class Approval(RunInput):
    """What the page asks for."""

    approve: bool = False
    why: str = ""


class Answer(NamedTuple):
    """Whether the model may become champion, and the reason that was given."""

    approve: bool
    why: str


def ask(title: str, reason: str, checks: list[dict[str, Any]], hours: float) -> Answer | None:
    """The answer of whoever resumes the paused flow run; None where nobody does in time, or where no page is open to anybody.

    Nothing is locked meanwhile: whatever is learned while a person thinks is judged by itself.
    """
    if os.environ.get(EMBEDDED):
        return None
    try:
        given = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=question(title, reason, checks)),
            timeout=int(hours * 3600),
            poll_interval=2,
        )
    except FlowPauseTimeout:
        return None
    return Answer(given.approve, given.why)


def question(title: str, reason: str, checks: list[dict[str, Any]]) -> str:
    """The page's text: what the gate found, as Markdown.

    >>> print(question("pets replay seed 0", "every bound holds", [{"bound": "flips", "candidate": 0.01, "holds": "yes"}]))
    **pets replay seed 0** may become champion: every bound holds.
    <BLANKLINE>
    | bound | candidate | holds |
    | --- | --- | --- |
    | flips | 0.01 | yes |
    <BLANKLINE>
    Approve, or leave the box empty to keep the champion there is. The report is among this run's artifacts.
    """
    names = list(checks[0]) if checks else []
    rows = [names, ["---"] * len(names), *([str(check[name]) for name in names] for check in checks)]
    table = [f"| {' | '.join(cells)} |" for cells in rows]
    shown = ["", *table] if names else []
    last = "Approve, or leave the box empty to keep the champion there is. The report is among this run's artifacts."
    return "\n".join([f"**{title}** may become champion: {reason}.", *shown, "", last])
