"""A model by its config: what its data hold, and its report."""

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from cl.errors import DataError
from cl.reports.report import Report
from cl.streams.arrivals import Arrivals
from cl.streams.build import StreamConfig
from flows.history.entries import history_of
from flows.history.standing import Standing
from flows.learn.configs import settings
from flows.learn.job import job_of
from flows.line.view import report_of_line
from flows.line.work import Work, work
from flows.settings import Place


def arrivals_of(config: str, data_root: str | None) -> Work:
    """What a config's data hold.

    Raises:
        ConfigError, DataError: it is wrong, or they are.
    """
    return work(job_of(config, (), data_root, whole=False))


def named(place: Place, standing: Standing, data_root: str | None) -> list[str]:
    """The sessions that lie in the data of the stream that the model learned last; none where nothing says which that is."""
    last = standing.open or (standing.line[-1] if standing.line else next(reversed(list(standing.tree.values())), None))
    if last is None:
        return []
    try:
        stream = TypeAdapter[StreamConfig](StreamConfig).validate_python(last.config.get("stream"))
        return list(Arrivals(stream, place.data_in(data_root)).there())
    except (ValidationError, DataError):
        return []


def report_of_model(config: str, overrides: Sequence[str], data_root: str | None) -> Report | None:
    """The report of the line that a config's model has grown; None where it has no history, or the config compares methods.

    Raises:
        ConfigError, DataError, StoreError: the config, its data or the history are damaged.
    """
    place = Place.find()
    run = settings(config, overrides, place)
    if run.compare or not history_of(place, run.name).read():
        return None
    at = work(job_of(config, overrides, data_root, whole=False))
    standing = at.standing()
    return report_of_line(at, standing, standing.line) if standing.line else None
