"""A closed-form head after subtraction is the one that never saw the rows, within rounding."""

import pytest
import torch

from cl.errors import MethodError
from cl.methods import CONFIGS as METHODS
from cl.methods import Method
from cl.methods.closed_form.gda import GDAConfig
from cl.methods.closed_form.ridge import RidgeConfig
from cl.methods.closed_form.taught import prints
from cl.methods.closed_form.tip import TipConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.store.subtract import forgets, renote, subtract
from cl.streams.stream import Session
from tests.make import names, session, tiny

CONFIGS = [RidgeConfig(penalty=0.1, projection=None), RidgeConfig(penalty=0.1, projection=300), GDAConfig(alpha=1.0)]


def taught(config: RidgeConfig | GDAConfig | TipConfig, *sessions: Session) -> Method:
    method = config.build(tiny(), 0).eval()
    for each in sessions:
        method.begin(each)
        method.end(each)
    return method


def sums(method: Method) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
    scatters = [(method.moments.second, method.moments.sums)]  # type: ignore[union-attr]
    scatters += [(method.gram, method.sums)] if hasattr(method, "gram") else []  # type: ignore[list-item]
    return [(whole, by_class.rows.detach(), by_class.names) for whole, by_class in scatters]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{getattr(config, 'projection', None)}")
def test_a_session_or_some_of_its_images_are_as_if_they_had_never_been(config: RidgeConfig | GDAConfig) -> None:
    one, two, three = session(1, (0, 1), (0, 1)), session(2, (1, 2, 3), (0, 1, 2, 3)), session(3, (4,), (0, 1, 2, 3, 4))
    some = [row for row in range(len(two.data)) if row % 3]
    half = Session(2, two.name, two.data.take([row for row in range(len(two.data)) if not row % 3]), two.tests, two.classes, two.vocabulary)
    for gone, left in ((list(range(len(two.data))), (one, three)), (some, (one, half, three))):
        subtracted, wanted = taught(config, one, two, three), taught(config, *left)
        subtract(subtracted, two.data, gone)
        for mine, theirs in zip(sums(subtracted), sums(wanted), strict=True):
            assert mine[2] == theirs[2]  # classes that nobody teaches any more are unknown, those that somebody does are not
            assert (mine[0] - theirs[0]).abs().max() < 2e-14 and (mine[1] - theirs[1]).abs().max() < 2e-14
        known = [*prints(one.data).tolist(), *prints(two.data).tolist()[: gone[0]]]
        assert subtracted.notes.prints.tolist() == known  # what was noted while the rows were there is gone
        for at, each in enumerate(left[1:], start=1):
            renote(subtracted, taught(config, *left[:at]), each.data, each.vocabulary)
        assert torch.equal(subtracted.notes.prints, wanted.notes.prints) and torch.equal(subtracted.notes.right, wanted.notes.right)
        images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        asked = names((0, 1, 2, 3, 4, 5))
        answers = [method.classify(images, method.class_features(asked)) for method in (subtracted, wanted)]
        # the default penalty bounds what rounding of the sums does to answers; gda's shrunk inverse of so few rows does less so
        assert (answers[0] - answers[1]).abs().max() < (1e-6 if config.name == "gda" else 3e-13)


def test_features_of_a_session_or_of_some_of_its_images_are_deleted() -> None:
    one, two, three = session(1, (0, 1), (0, 1)), session(2, (1, 2, 3), (0, 1, 2, 3)), session(3, (4,), (0, 1, 2, 3, 4))
    some = [row for row in range(len(two.data)) if row % 3]
    half = Session(2, two.name, two.data.take([row for row in range(len(two.data)) if not row % 3]), two.tests, two.classes, two.vocabulary)
    config = TipConfig(captions=0.5)
    for gone, left in ((list(range(len(two.data))), (one, three)), (some, (one, half, three))):
        subtracted, wanted = taught(config, one, two, three), taught(config, *left)
        subtract(subtracted, two.data, gone)
        assert subtracted.cache.names == wanted.cache.names
        for mine, theirs in zip(subtracted.cache.buffers(), wanted.cache.buffers(), strict=True):
            assert torch.allclose(mine.double(), theirs.double(), atol=1e-6 if gone == some else 0)  # rows of another batch round otherwise


def test_what_is_no_sum_is_refused() -> None:
    two = session(1, (0, 1), (0, 1))
    for config in (FinetuneConfig(), TipConfig(keys="trained")):
        with pytest.raises(MethodError, match="no sum over rows"):
            subtract(config.build(tiny(), 0), two.data, [0])


def test_by_its_settings_it_is_known_which_method_forgets() -> None:
    ways = {name: forgets({"name": name}) for name in METHODS}
    assert {name for name, way in ways.items() if way} >= {"ridge", "gda", "tip", "tip_adapter", "caps_adapter"}
    assert not {name for name in ("finetune", "linear_probe", "tip_adapter_f", "zero_shot") if ways[name]}
    assert forgets({"name": "gda", "unlabelled": "em"}) is None  # which part of a row went where is not kept
    assert forgets({"name": "tip", "keys": "trained"}) is forgets({"name": "of another release"}) is None
