"""What an update came to, on the page of its Prefect run."""

from typing import Any

from prefect import task

from cl.names import in_markdown
from flows.history.entries import Verdict
from flows.learn.job import Job
from flows.learn.run_page import open_with
from flows.learn.session import RETRIED
from flows.line.entered import name_of
from flows.line.work import work

_REASON = 1000  # characters of what the gate said


@task(task_run_name="show", **RETRIED)
def show(job: Job, outcome: dict[str, Any]) -> None:
    """What became of each session, and who is champion now: the page that the run's page opens with, and tags beside its name."""
    at = work(job)
    standing = at.standing()
    last: dict[str, Verdict] = {}
    for verdict in (each for verdicts in standing.verdicts.values() for each in verdicts):
        if verdict.session in outcome["learned"]:
            last[verdict.session] = verdict  # of a session that was tried twice the newer state comes later
    champion = f"version {standing.champion.version} is champion" if standing.champion else "no version is champion"
    waits = f"{outcome['waiting']} sessions wait" if outcome["waiting"] else ""
    what = [f"{name} {said(last.get(name))}" for name in outcome["learned"]] or ["nothing new was learned"]
    lines = [f"# {in_markdown(at.config.name)}: {champion}", "", *(f"- {_line(name, last.get(name))}" for name in outcome["learned"])]
    if not outcome["learned"] or waits:
        lines += ["", in_markdown("; ".join(each for each in ("" if outcome["learned"] else what[0], waits, str(outcome["why"])) if each))]
    lines += ["", f"The report: {in_markdown(str(at.place.reports / outcome['run'] / 'report.html'))}"]
    told = f"{at.config.name}: {champion}; {'; '.join([*what, *([waits] if waits else [])])}"
    open_with(f"{name_of(at)}-update", "\n".join(lines), told, [champion, *what, waits])


def said(verdict: Verdict | None) -> str:
    """What became of a session, in a word or two.

    >>> said(None), said(Verdict(state="s", session="may", word="refused"))
    ('is not judged yet', 'refused')
    """
    return str(verdict.word) if verdict else "is not judged yet"


def _line(name: str, verdict: Verdict | None) -> str:
    version = f", as version {verdict.version}" if verdict and verdict.version else ""
    reason = f": {in_markdown(verdict.reason[:_REASON])}" if verdict and verdict.reason else ""
    return f"**{in_markdown(name)}** {said(verdict)}{version}{reason}"
