"""Mod-X's angles: what a rotation of one tower or of both does to them, and that a stream reports them."""

import math

import numpy as np
import pytest
import torch

from cl.evaluation.geometry import Pairs, angles, deviation, geometry, modality_gap, pairs, rotation, structure_change
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from tests import make


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=source, dtype=torch.float64), dim=-1)


def orthogonal(width: int, seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return q


BEFORE = Pairs(unit(40, 8, 0), torch.nn.functional.normalize(unit(40, 8, 0) + 0.3 * unit(40, 8, 1), dim=-1))


def first(both: Pairs) -> float:
    return float(((both.images @ both.texts.T).argmax(-1) == torch.arange(len(both.images))).double().mean())


def test_the_same_rotation_of_both_towers_turns_samples_and_changes_nothing_else() -> None:
    q = orthogonal(8, 2)
    after = Pairs(BEFORE.images @ q, BEFORE.texts @ q)
    assert rotation(BEFORE.images, after.images).mean() > 60
    assert structure_change(BEFORE.images, after.images) < 2e-5
    assert deviation(BEFORE, after).abs().max() < 2e-5
    assert first(after) == first(BEFORE) > 0.5


def test_a_rotation_of_the_images_alone_is_inter_modal_deviation() -> None:
    after = Pairs(BEFORE.images @ orthogonal(8, 2), BEFORE.texts)
    degrees = geometry(BEFORE, after)
    assert degrees["sam_image"] < 2e-5 and degrees["ram_text"] < 1e-5
    assert degrees["idm_pairs"] > 30 and degrees["idm_others"] > 10
    assert first(after) < 0.2


def test_angles_agree_with_a_plain_loop_in_numpy() -> None:
    one, two = BEFORE.images[:5].numpy(), BEFORE.texts[:7].numpy()
    by_hand = [[math.degrees(math.acos(np.clip(np.dot(a, b), -1, 1))) for b in two] for a in one]
    np.testing.assert_allclose(angles(BEFORE.images[:5], BEFORE.texts[:7]).numpy(), by_hand, atol=1e-9)


def test_float32_features_that_are_equal_are_zero_degrees_apart() -> None:
    features = unit(30, 16, 3).float()
    assert rotation(features, features).max() < 1e-4


def test_the_modality_gap_is_the_distance_of_the_means() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert modality_gap(Pairs(images, -images)) == pytest.approx(2.0)
    assert modality_gap(Pairs(images, images)) == 0.0


def test_the_kept_share_is_of_the_model_as_it_is_now() -> None:
    right = Pairs(torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    wrong = Pairs(right.images[[1, 0, 2, 3]], right.texts)  # the first two images ask for each other's text
    for before in (right, wrong):
        assert geometry(before, wrong)["kept_i2t"] == geometry(before, wrong)["kept_t2i"] == 0.5
        assert geometry(before, right)["kept_i2t"] == 1.0


def test_pairs_are_the_sets_own_images_and_texts_and_one_pair_is_enough() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = ZeroShotConfig().build(make.tiny(), 0).eval()
    both = pairs(method, session.tests[0], 4)
    assert both.images.shape == both.texts.shape and len(both.images) == 4
    assert torch.allclose(both.images.norm(dim=-1), torch.ones(4, dtype=torch.float64), atol=1e-6)
    alone = pairs(method, session.tests[0], 1)
    assert math.isnan(geometry(alone, alone)["sam_image"]) and geometry(alone, alone)["ram_image"] < 1e-4
