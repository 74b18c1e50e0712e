"""What a person may want of a session, by how the model stands: retry, skip or accept it; and what to do instead where that cannot be."""

from collections.abc import Collection
from typing import Literal

from cl.errors import StoreError
from cl.names import slug
from cl.text import some
from flows.history.entries import Accept, Retry, Skipped, Verdict
from flows.history.standing import Standing, Status, Word

Wish = Literal["retry", "skip", "accept"]


def retry(standing: Standing, session: str, by: str) -> Retry:
    """That a session is learned and judged again.

    Raises:
        StoreError: it is in the line, waits, or there is none of that name.
    """
    status = _known(standing, session)
    _barred("retry", standing, session, status)
    if status.word in (Word.AGAIN, Word.BEGUN, Word.UNJUDGED):
        raise StoreError(f"session {session!r} waits already, as {status.word}{_because(status)}: the next `evergreen update` takes it")
    if status.word == Word.ASKED:
        raise StoreError(f"session {session!r} waits for a person: {_answers(standing, session)}")
    return Retry(session=session, by=by)


def skip(standing: Standing, session: str, why: str, by: str, there: Collection[str] = ()) -> Skipped:
    """That a session is left out; `there`: those that are in the data, known to the history or not.

    Raises:
        StoreError: it is in the line, skipped before, or there is none of that name.
    """
    status = None if session in there and session not in standing.sessions else _known(standing, session, there)
    if status:
        _barred("skip", standing, session, status)
        if status.word == Word.SKIPPED:
            raise StoreError(f"session {session!r} is skipped already{_because(status)}")
    return Skipped(session=session, why=why, by=by)


def accept(standing: Standing, session: str, why: str, by: str) -> Accept:
    """That a session is in the line, whatever the gate says of it.

    Raises:
        StoreError: it is learned, its candidate holds what was withdrawn, or there is none of that name.
    """
    status = _known(standing, session)
    if status.word != Word.KEPT:
        _barred("accept", standing, session, status)
    wanted = candidate(standing, session)
    if wanted and wanted.version in standing.barred:
        raise StoreError(
            f"session {session!r}: its candidate, version {wanted.version}, holds what was withdrawn; "
            f"evergreen retry {_model(standing)} {session} learns it without"
        )
    return Accept(session=session, why=why, by=by)


def candidate(standing: Standing, session: str) -> Verdict | None:
    """The last verdict with a version on a session's latest state, where that is in the line or grew from the head."""
    state = standing.sessions[session].state
    learned = standing.tree.get(state) if state else None
    if learned is None or learned.state in standing.pruned:
        return None
    if learned.parent != standing.head and learned not in standing.line:
        return None
    return next((each for each in reversed(standing.verdicts.get(learned.state, ())) if each.version), None)


def _known(standing: Standing, session: str, there: Collection[str] = ()) -> Status:
    if session in standing.sessions:
        return standing.sessions[session]
    names = list(dict.fromkeys([*standing.sessions, *there]))
    told = f"there are {some(names, 10)}" if names else "it knows none yet"
    raise StoreError(f"no session {session!r} in the history of {_model(standing)}; {told}")


def _barred(wish: Wish, standing: Standing, session: str, status: Status) -> None:
    """Raise where a session is beyond all wishes: in the line for good, or withdrawn."""
    if status.word == Word.WITHDRAWN:
        raise StoreError(f"session {session!r} is withdrawn{_because(status)}: it is never learned again")
    if status.word in (Word.LEARNED, Word.KEPT):
        back = f"evergreen rollback {_model(standing)} takes the model back to before it"
        hint = f"; evergreen accept {_model(standing)} {session} --why ... agrees with it" if status.word == Word.KEPT else ""
        what = "learned already" if wish == "accept" else f"in the model ({status.word})"
        raise StoreError(f"session {session!r} is {what}, so there is nothing to {wish}; {back}{hint}")


def _because(status: Status) -> str:
    return f" ({status.why})" if status.why else ""


def _answers(standing: Standing, session: str) -> str:
    verdict, model = standing.waiting, _model(standing)
    yes = f"evergreen promote {model} {verdict.version}" if verdict and verdict.version else f"evergreen accept {model} {session}"
    return f"{yes} agrees, evergreen skip {model} {session} leaves it out"


def _model(standing: Standing) -> str:
    return slug(standing.opened.model) if standing.opened else "this model"
