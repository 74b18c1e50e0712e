"""What travels between flows and tasks: a job is plain JSON; the plan it stands for is rebuilt, once per process, where it is needed."""

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cl.base_model import settle
from cl.errors import MethodError, StoreError
from cl.learning.learner import steps_over
from cl.plan import check_wants, read_stream
from cl.run import Plan, Step, measured, plan
from cl.run_config import RunConfig, check_device, parse_config, train_config, variants
from cl.run_config import label as label_of
from cl.text import plural
from flows.data.shelf import shelf_locked
from flows.data.versions import materialise, version
from flows.learn.configs import settings
from flows.settings import Place
from flows.watch import watch


@dataclass(frozen=True)
class Job:
    """One stream to learn, with one method and seed, from one version of the data."""

    config: str  # JSON
    folder: str  # where the data lies
    data: str  # its version
    pinned: bool
    rev: str | None
    root: str

    @property
    def place(self) -> Place:
        """The project it belongs to."""
        return Place(Path(self.root))

    @property
    def settings(self) -> dict[str, Any]:
        """The whole config as plain values."""
        return dict(json.loads(self.config))

    def tags(self) -> dict[str, str]:
        """What tells this job from others."""
        rev = {"data_rev": self.rev} if self.rev else {}
        tags = {"stream": self.settings["name"], "method": label(self), "seed": str(self.settings["seed"])}
        tags |= {"data": self.data, "data_pinned": str(self.pinned).lower(), **rev}
        return {f"evergreen.{name}": value for name, value in tags.items()}


@dataclass(frozen=True)
class Turn:
    """One step of a job: which session, and the content key that stands for everything it depends on."""

    index: int
    last: int
    session: str
    key: str


def job_of(
    config: str | dict[str, Any],
    overrides: Sequence[str] = (),
    data_root: str | None = None,
    data_rev: str | None = None,
    *,
    whole: bool = True,
    look: Callable[[Job], object] | None = None,
) -> Job:
    """The job that a flow's parameters ask for; an older version of the data is fetched beside the working copy.

    Not `whole`: its sessions are not read, for who goes on with those that are new. `look` looks at the data while nobody adds to them.

    Raises:
        ConfigError, DataError: a setting is wrong, or there is no such data.
    """
    place = Place.find()
    run = settings(config, overrides, place)
    folder = place.data_in(data_root)
    past = materialise(folder, data_rev, place.versions) if data_rev else None
    with nullcontext() if past else shelf_locked(place):  # else a session could come in between the version named and the sessions read
        seen = past or version(folder)
        run = settle(run, Path(seen.folder), place.runs / "models", watch().progress, place.outlines)
        if whole:
            read_stream(run, Path(seen.folder), seen.digest, place.outlines)
        job = Job(_json(run), seen.folder, seen.digest, seen.pinned, data_rev, str(place.root))
        if look:
            look(job)
    return job


def learnable(
    config: str | dict[str, Any], overrides: Sequence[str] = (), data_root: str | None = None, data_rev: str | None = None
) -> Job:
    """The job of `job_of`, once nothing stands in the way of learning it on this machine.

    Raises:
        ConfigError, DataError, ModelError, MethodError: what does.
    """
    check_device(settings(config, overrides, Place.find()))
    job = job_of(config, overrides, data_root, data_rev)
    planned(job)
    return job


def prepared(
    config: str | dict[str, Any],
    overrides: Sequence[str] = (),
    data_root: str | None = None,
    look: Callable[[Job], object] | None = None,
) -> Job:
    """The job of `job_of` for `update`, which reads no session but those that wait.

    Raises:
        ConfigError, DataError, ModelError, MethodError: what stands in its way on this machine, or with any data that are there.
    """
    check_device(settings(config, overrides, Place.find()))
    job = job_of(config, overrides, data_root, whole=False, look=look)
    check_wants(parse_config(job.settings, "config"), Path(job.folder))
    return job


def jobs_of(
    config: str | dict[str, Any], overrides: Sequence[str] = (), data_root: str | None = None, data_rev: str | None = None
) -> list[Job]:
    """One job per method and seed of the config's `compare` section; the one it describes where there is none.

    Raises:
        ConfigError, DataError: a setting is wrong, or there is no such data.
    """
    first = job_of(config, overrides, data_root, data_rev)
    run = parse_config({**first.settings, "compare": settings(config, overrides, first.place).model_dump(mode="json")["compare"]}, "config")
    return [replace(first, config=_json(one)) for one in variants(run)]


def check_methods(jobs: Sequence[Job]) -> dict[str, int]:
    """The `length` of each method of a comparison; raise where one cannot use a session, before any of them learns, all of them named.

    Raises:
        MethodError: says which and why.
        ConfigError, DataError, ModelError: what cannot work either.
    """
    lengths, faults = {}, {}
    for job in jobs:
        name = label(job)
        if name not in faults:
            try:
                lengths[name] = length(job)
            except MethodError as error:
                faults[name] = str(error)
    if faults:
        told = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise MethodError(f"{len(faults)} of the methods to compare cannot learn this stream. {told}. Leave them out of compare.methods")
    return lengths


def check_devices(config: str | dict[str, Any], overrides: Sequence[str] = ()) -> None:
    """Raise where a method of the config's `compare` section asks for a device that this machine has not.

    Raises:
        ConfigError: it does, or a setting is wrong.
    """
    for run in variants(settings(config, overrides, Place.find())):
        check_device(run)


@functools.lru_cache(maxsize=1)
def planned(job: Job) -> Plan:
    """The plan of a job, kept while the same job is asked for: building it reads the data.

    Raises:
        ConfigError, DataError, ModelError, MethodError: what cannot work, said before anything is learned.
    """
    return _plan(job, learns=True)


@functools.lru_cache(maxsize=1)
def outlined(job: Job) -> Plan:
    """The plan of a job for who only looks at what is learned of it, see `cl.plan.plan`; kept like the other.

    Raises:
        ConfigError, DataError, ModelError: what it is made of cannot be read.
    """
    return _plan(job, learns=False)


def _plan(job: Job, learns: bool) -> Plan:
    return plan(parse_config(job.settings, "config"), Path(job.folder), job.data, learns, job.place.outlines)


def turns(job: Job, learns: bool = True) -> list[Turn]:
    """The steps of a job in order; the first is the model before any session."""
    plan = planned(job) if learns else outlined(job)
    names = ["start", *(session.name for session in plan.stream.sessions)]
    return [Turn(index, len(names) - 1, name, key) for index, (name, key) in enumerate(zip(names, plan.keys, strict=True))]


def sizes(job: Job) -> list[int]:
    """The steps that each session will take, as far as its settings tell; for what adds up and does not descend, as if it did."""
    plan = planned(job)
    return [steps_over(len(session.data), train_config(plan.config, session)) for session in plan.stream.sessions]


def length(job: Job) -> int:
    """What jobs of one stream are ordered by, the longest first: its steps, 1 for what adds up, 0 for what learns nothing."""
    plan = planned(job)
    return sum(sizes(job)) if plan.descends else int(plan.config.method.name != "zero_shot")


@functools.lru_cache(maxsize=64)
def label(job: Job) -> str:
    """What its method is called in tables: "vr_lwf", or "joint"."""
    return label_of(parse_config(job.settings, "config"))


def title(job: Job) -> str:
    """How people call a job: "glyphs vr_lwf seed 0"."""
    return f"{job.settings['name']} {label(job)} seed {job.settings['seed']}"


def finished(jobs: Sequence[Job]) -> list[tuple[Job, list[Step]]]:
    """Those jobs whose every step is on disk, whole, and their steps.

    Raises:
        StoreError: there is not one.
    """
    whole = []
    for job in jobs:
        steps = [step for turn in turns(job) if (step := measured(planned(job), turn.index, job.place.steps))]
        if len(steps) == len(turns(job)):
            whole.append((job, steps))
    if not whole:
        raise StoreError(
            f"none of {plural(len(jobs), 'stream')} is learned with these settings, data and code; `evergreen run` or `compare` learns them"
        )
    return whole


def _json(run: RunConfig) -> str:
    return json.dumps(run.model_dump(mode="json", exclude={"compare"}), sort_keys=True)
