"""`evergreen pretrain`: the recipe of the shipped base model, run on the project's glyphs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cl.config import EvalConfig, override, validate
from cl.data.formats import read_splits
from cl.errors import StoreError
from cl.pretrain import PretrainConfig, measure, pretrain, save_pretrained
from cl.streams.build import class_names
from cl.streams.stream import EvalSet

Scores = dict[str, dict[str, float]]


def make_base(data: Path, settings: Sequence[str], target: Path, tell: Callable[..., None]) -> Scores:
    """Train, write and measure the base model; returns its zero-shot scores on the held-out fonts, by domain.

    Raises:
        ConfigError, DataError: a setting is wrong, or there are no glyphs in `data`.
        StoreError: something else lies at `target`.
    """
    config = validate(PretrainConfig, override({}, settings), "pretrain")
    if target.exists():
        raise StoreError(f"{target}: exists already; choose another folder")
    splits = read_splits(data, check=False)
    tests = []
    for domain in config.domains or sorted({str(domain) for domain in splits["test"].domains}):
        rows = splits["test"].where([own == domain for own in splits["test"].domains])
        tests.append(EvalSet(domain, "classify", rows, class_names(rows.classes(), ["{}"])))
    clip = pretrain(config, splits["train"], tests, tell)
    save_pretrained(clip, target)
    return measure(clip, tests, EvalConfig())
