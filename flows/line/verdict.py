"""Verdicts: what the gate, or a person, says of a learned session, noted in the model's history and then shown by aliases."""

from prefect import task
from prefect.artifacts import create_table_artifact

from cl.evaluation.gate import Decision
from cl.names import slug
from flows.history.entries import Champion, Verdict, note
from flows.history.standing import Standing
from flows.learn.job import Job
from flows.learn.session import RETRIED, tracker_of
from flows.line.entered import name_of, publish, say, session_run
from flows.line.line_page import page
from flows.line.ruling import best, rule
from flows.line.work import Work, work
from flows.registry.champion import CHALLENGER, CHAMPION, change, find, holder, versions_of
from flows.registry.judge import row
from flows.registry.question import WAITING, Answer, answer_in, question_in, said, standing
from flows.watch import watch


@task(task_run_name="judge {session}", **RETRIED)
def judge(job: Job, run_id: str, session: str, state: str, answer: Answer | None = None) -> None:
    """Note what becomes of a learned session: accepted, refused, or waiting where a person's answer is wanted and not given yet."""
    at, client = work(job), tracker_of(job).client
    standing, bounds = at.standing(), at.config.gate
    learned, accepter = standing.tree[state], session in standing.overruled
    ruled = rule(at, client, standing, learned, bounds)
    decision = ruled.decision
    _show(at, session, decision)
    if not decision.promote and not accepter:
        child, version = publish(job, run_id, session, state)
        _challenge(at, job, version, decision.reason)
        _note(at, standing, session, state, "refused", decision.reason, version)
        say(job, [child, run_id], "refused", decision.reason, ruled)
        page(job, run_id, session, state, best(standing))
        watch().tell(f"{at.config.name}: {session} is refused, as version {version}: {decision.reason}. {_after(at, session)}")
    elif bounds.approval and answer is None and not accepter:
        child, version = publish(job, run_id, session, state)
        reason = f"{decision.reason}, and a person has to agree: evergreen promote {name_of(at)} {version}"
        _challenge(at, job, version, reason)
        _note(at, standing, session, state, "waiting", reason, version)
        say(job, [child, run_id], WAITING, reason, ruled)
        page(job, run_id, session, state, best(standing))
    else:
        say(job, [session_run(tracker_of(job), run_id, state, session)], "accepted", decision.reason, ruled)
        by = f", and {said(answer)}" if answer else ", and somebody accepted it before" if accepter else ""
        _note(at, standing, session, state, "accepted", f"{decision.reason}{by}", None, answer.who if answer else "")
        watch().tell(f"{at.config.name}: {session} is accepted: {decision.reason}{by}")


def crown(job: Job, run_id: str) -> None:
    """Make the last accepted state champion: a version, a note, the alias, and the note that it follows; what is done is not done again."""
    at, client = work(job), tracker_of(job).client
    standing = at.standing()
    if state := standing.unpublished or _deleted(at, job, standing):
        learned = standing.tree[state]
        child, version = publish(job, run_id, learned.session, state)
        verdicts = standing.verdicts.get(state, ())
        reason = verdicts[-1].reason if verdicts else "the champion's version was deleted in MLflow"
        _note(at, standing, learned.session, state, "promoted", reason, version)
        say(job, [child, run_id], "promoted", reason, None)
        page(job, run_id, learned.session, state, standing.champion.state if standing.champion else None)
        watch().tell(f"{at.config.name}: version {version} of {name_of(at)} is champion: {reason}")
        standing = at.standing()
    if standing.champion and not standing.confirmed:
        version, state = standing.champion
        now = holder(client, name_of(at), CHAMPION)
        if now is None or str(now.version) != version:
            verdicts = standing.verdicts.get(state or "", ())
            change(at.place, client, name_of(at), CHAMPION, version, f"the gate: {verdicts[-1].reason if verdicts else ''}")
        note(at.journal, Champion(version=version, state=state, how="gate", by="the gate"))


def settle(job: Job, run_id: str) -> bool:
    """Whether a candidate that waits for a person's word waits no longer: it was answered, or nobody answered in time."""
    at, client = work(job), tracker_of(job).client
    verdict = at.standing().waiting
    assert verdict
    tags = client.get_run(str(find(client, name_of(at), str(verdict.version)).run_id)).data.tags
    answer, asked = answer_in(tags), question_in(tags)
    if answer and not answer.approve:
        _note(at, at.standing(), verdict.session, verdict.state, "declined", said(answer), verdict.version, answer.who)
    elif answer:
        judge(job, run_id, verdict.session, verdict.state, answer)  # asked again: another champion may have come meanwhile
    elif asked and asked.over:
        reason = f"nobody answered until {asked.deadline}"
        _note(at, at.standing(), verdict.session, verdict.state, "expired", reason, verdict.version)
        watch().tell(f"{at.config.name}: {verdict.session}: {reason}; it is set aside. {_after(at, verdict.session)}")
    else:
        told = standing(at.place, tags) or f"a person has to agree: evergreen promote {name_of(at)} {verdict.version}"
        watch().tell(f"{at.config.name}: nothing is learned meanwhile: {told}")
        return False
    return True


def _note(at: Work, was: Standing, session: str, state: str, word: str, reason: str, version: str | None, by: str = "") -> None:
    fact = Verdict(
        state=state,
        session=session,
        word=word,  # type: ignore[arg-type]
        version=version,
        champion=best(was),
        champion_version=_champion(was),
        bounds=at.config.gate.model_dump(mode="json"),
        reason=reason,
        policy=at.config.update.refused,
        by=by or "the gate",
    )
    note(at.journal, fact)


def _champion(was: Standing) -> str | None:
    return was.champion.version if was.champion else None


def _challenge(at: Work, job: Job, version: str, reason: str) -> None:
    client, name = tracker_of(job).client, name_of(at)
    held = holder(client, name, CHALLENGER)
    if held is None or str(held.version) != version:
        change(at.place, client, name, CHALLENGER, version, f"the gate: {reason}")


def _after(at: Work, session: str) -> str:
    """What becomes of a session that was not accepted, and what a person can do about it."""
    choices = f"evergreen sessions {name_of(at)}; retry, skip or accept {session}"
    return {
        "set_aside": f"It is set aside, and the next grows from the champion ({choices})",
        "retry_with_next": f"It is tried once more, together with the next ({choices})",
        "keep": "It stays in the line, as update.refused says: keep",
    }[at.config.update.refused]


def _deleted(at: Work, job: Job, was: Standing) -> str | None:
    """The champion's state where somebody has deleted its version in MLflow."""
    if was.champion is None or was.champion.state is None:
        return None
    there = {str(each.version) for each in versions_of(tracker_of(job).client, name_of(at))}
    return None if was.champion.version in there else was.champion.state


def _show(at: Work, session: str, decision: Decision) -> None:
    rows = [row(check) for check in decision.checks]
    if rows:
        key = f"{slug(at.config.name)}-gate"
        create_table_artifact(key=key, table=rows, description=f"{at.config.name}: {session}: {decision.reason}")
