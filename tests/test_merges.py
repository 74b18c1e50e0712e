"""Merges: what becomes of the weights when a session is learned, over any recipe."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl.config import TrainConfig, validate
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import ConfigError, MethodError
from cl.learning.learner import learn
from cl.methods import CONFIGS, PARTS
from cl.methods.compose import RecipeConfig
from cl.methods.merges import Merge, MergeConfig
from cl.methods.merges.ensemble import EnsembleConfig
from cl.methods.merges.interpolate import InterpolateConfig
from cl.methods.merges.magmax import MagMaxConfig
from cl.methods.merges.mean import MeanConfig
from cl.methods.merges.ties import TIESConfig, elected, trimmed
from cl.methods.persist import memory
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.recipe import Recipe
from cl.methods.rounds import Rounds
from cl.methods.terms.fit import Fit, FitConfig
from cl.methods.tuners.base import Tuner
from cl.methods.tuners.lora import LoRAConfig
from cl.methods.tuners.whole import Whole
from cl.methods.view import Site
from tests import make
from tests.families import family
from tests.test_every_method import assert_same
from tests.test_lwf import FAST, continues_as_if_never_saved
from tests.test_resume import STEPS, resumed

SESSIONS = make.stream((0, 1), (2, 3)).sessions


def grid(k: int) -> np.ndarray:
    """The first row of the worked numbers' G(1, 8, k)."""
    return np.sin(3 * np.arange(8) + k)


BASE = grid(0)
VECTORS = np.stack([0.5 * grid(1), 0.4 * grid(2), 0.3 * grid(3)])  # what three sessions changed
# published: what the rule makes of the three, as a change of the base
MAGMAX = [0.4207354924, -0.3835697099, 0.3957432986, -0.3999960826, 0.3962429423, -0.3845589968, 0.3651781003, -0.3384881617]
TIES_5 = [0.4207354924, -0.3809854788, 0.3621182990, -0.2776595045, 0.2671376042, -0.3049275854, 0.2509966916, -0.2716735086]
TIES_2 = [0.4207354924, -0.3784012477, 0, -0.3999960826, 0.3962429423, 0, 0.2509966916, -0.2716735086]


class Eight(Tuner):
    """Eight weights that tests move by hand."""

    def __init__(self) -> None:
        super().__init__(make.tiny())
        self.w = nn.Parameter(torch.from_numpy(BASE.copy()))

    def weights(self) -> Mapping[str, nn.Parameter]:
        return {"tuner.w": self.w}


def site(tuner: Tuner) -> Site:
    return Site(tuner, None, None, 0, None, None)  # type: ignore[arg-type]


def over(config: MergeConfig, vectors: np.ndarray = VECTORS) -> tuple[np.ndarray, Eight, Merge]:
    """What answers after sessions that change the base model so."""
    tuner = Eight()
    merge = config.build(tuner, 0)
    for vector in vectors:
        merge.before(site(tuner))
        merge.start(site(tuner))
        with torch.no_grad():
            tuner.w.copy_(torch.from_numpy(BASE + vector))
        merge.close(site(tuner))
    return tuner.w.detach().numpy(), tuner, merge


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (MagMaxConfig(scaling=1), MAGMAX),
        (MagMaxConfig(), 0.5 * np.array(MAGMAX)),
        (TIESConfig(keep=0.5), TIES_5),
        (TIESConfig(keep=0.2), TIES_2),
        (TIESConfig(scaling=0.5), 0.5 * np.array(TIES_2)),
        (MeanConfig(), VECTORS.sum(0) / 4),
        (TIESConfig(scaling=0), np.zeros(8)),
    ],
)
def test_three_sessions_are_merged_as_worked_out(config: MergeConfig, change: Any) -> None:
    np.testing.assert_allclose(over(config)[0], BASE + np.array(change), atol=2e-10)


@pytest.mark.parametrize("config", [MagMaxConfig(scaling=1), TIESConfig(keep=1)], ids=lambda config: config.kind)
def test_one_session_of_which_all_is_kept_is_what_was_learned(config: MergeConfig) -> None:
    np.testing.assert_allclose(over(config, VECTORS[:1])[0], BASE + VECTORS[0], rtol=0, atol=1e-15)


def joint_ties(vectors: np.ndarray, keep: float) -> np.ndarray:
    """All task vectors at once, in plain loops over weights."""
    tasks, size = vectors.shape
    kept = np.zeros_like(vectors)
    for task in range(tasks):
        for place in np.argsort(-np.abs(vectors[task]), kind="stable")[: min(int(size * keep) + 1, size)]:
            kept[task, place] = vectors[task, place]
    signs = [np.sign(kept[:, place].sum()) for place in range(size)]
    most = np.sign(sum(signs))
    merged = []
    for place, sign in enumerate(signs):
        votes = [value for value in kept[:, place] if value * (sign or most) > 0]
        merged.append(sum(votes) / len(votes) if votes else 0.0)
    return np.array(merged)


def joint_magmax(vectors: np.ndarray) -> np.ndarray:
    return np.array([max(column, key=abs) for column in vectors.T])


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_of_the_sessions_gives_what_all_task_vectors_give(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(7, 8))
    for keep in (0.1, 0.4, 0.9, 1.0):
        np.testing.assert_allclose(over(TIESConfig(keep=keep), vectors)[0], BASE + joint_ties(vectors, keep), atol=1e-12)
    np.testing.assert_allclose(over(MagMaxConfig(scaling=1), vectors)[0], BASE + joint_magmax(vectors), atol=1e-12)
    np.testing.assert_allclose(over(MeanConfig(), vectors)[0], np.vstack([BASE, BASE + vectors]).mean(0), atol=1e-12)
    orders = vectors, vectors[::-1].copy()  # without equals the order of sessions is nothing to a rule
    for config in (TIESConfig(), MagMaxConfig(), MeanConfig()):
        np.testing.assert_allclose(*(over(config, each)[0] for each in orders), atol=1e-12)


def test_votes_that_cancel_take_the_sign_that_most_weights_have() -> None:
    vectors = np.array([[1.0, -1, -1, -1, 0, 0, 0, 0], [-1.0, -1, -1, -1, 0, 0, 0, 0]])
    np.testing.assert_allclose(over(TIESConfig(keep=0.4), vectors)[0] - BASE, [-1, -1, -1, -1, 0, 0, 0, 0], atol=1e-12)
    assert elected(torch.tensor([0.0, 2.0, 3.0, -1.0])).tolist() == [1, 1, 1, -1]


def test_of_equal_changes_the_later_wins() -> None:
    vectors = np.array([[1.0, 2, 0, 0, 0, 0, 0, 0], [-1.0, 1, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose((over(MagMaxConfig(scaling=1), vectors)[0] - BASE)[:2], [-1, 2], atol=1e-12)


def test_one_more_than_the_share_is_kept_as_in_the_authors_code_and_all_of_it_at_one() -> None:
    vector = torch.arange(1, 11, dtype=torch.float64)
    assert [int((trimmed(vector, keep) != 0).sum()) for keep in (0.05, 0.2, 0.99, 1.0)] == [1, 3, 10, 10]
    assert trimmed(torch.tensor([2.0]), 0.2).tolist() == [2]


def test_a_share_for_the_newest_lies_beside_the_rule_over_the_sessions_before() -> None:
    earlier = over(TIESConfig(scaling=0.5), VECTORS[:2])[0].copy()
    beside = over(TIESConfig(scaling=0.5, newest=0.25))[0]
    np.testing.assert_allclose(beside, 0.75 * earlier + 0.25 * (BASE + VECTORS[2]), atol=1e-12)
    np.testing.assert_allclose(over(MeanConfig(newest=0.25), VECTORS[:1])[0], BASE + 0.25 * VECTORS[0], atol=1e-12)


def test_the_next_session_goes_on_from_what_was_learned_or_from_what_answers() -> None:
    for chain in ("sequential", "running"):
        answered, tuner, merge = over(MagMaxConfig(chain=chain))  # type: ignore[arg-type]
        answered = answered.copy()
        merge.before(site(tuner))
        expected = BASE + VECTORS[-1] if chain == "sequential" else answered
        np.testing.assert_array_equal(tuner.w.detach().numpy(), expected)
        assert ("learned" in dict(merge.named_buffers())) == (chain == "sequential")


def test_votes_of_more_than_255_sessions_are_counted() -> None:
    up = np.array([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(over(TIESConfig(), np.repeat(up, 300, 0))[0] - BASE, up[0], atol=1e-9)


def tuned(*merge: MergeConfig, sessions: int = 2, dtype: torch.dtype = torch.float32) -> Recipe:
    """Fine-tuning with a merge, or plain, after so many sessions."""
    method = FinetuneConfig(merge=merge[0] if merge else None).build(make.tiny().to(dtype), 0).to(dtype)
    for session in SESSIONS[:sessions]:
        learn(method, session, FAST, 0)
    return method


@cache
def plain(sessions: int) -> dict[str, Tensor]:
    """The weights of fine-tuning alone."""
    return weights(tuned(sessions=sessions))


def weights(method: Recipe) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in method.tuner.weights().items()}


def assert_near(one: Mapping[str, Tensor], two: Mapping[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value.double().numpy(), np.asarray(two[name], dtype=np.float64), atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "config",
    [
        InterpolateConfig(share=1),
        MeanConfig(newest=1),
        TIESConfig(newest=1),
        MagMaxConfig(newest=1),
        InterpolateConfig(share=1, reference="original"),
    ],
    ids=lambda config: config.kind,
)
def test_with_all_of_the_share_it_is_plain_fine_tuning_bit_for_bit(config: MergeConfig) -> None:
    assert_same(weights(tuned(config)), plain(2))


@pytest.mark.parametrize(
    "config",
    [InterpolateConfig(share=0), InterpolateConfig(share=0, reference="original"), MagMaxConfig(scaling=0)],
    ids=lambda config: config.kind,
)
def test_with_none_of_it_the_model_is_where_it_began_bit_for_bit(config: MergeConfig) -> None:
    assert_same(weights(tuned(config)), dict(make.tiny().named_parameters()))


def test_sequential_training_is_that_of_fine_tuning_and_what_answers_is_merged() -> None:
    base, first, second = map(plain, range(3))
    for config, rule in ((MeanConfig(), lambda *each: np.mean(each, 0)), (MagMaxConfig(scaling=1), larger)):
        method = tuned(config)
        expected = {name: rule(*(each[name].double().numpy() for each in (base, first, second))) for name in base}
        assert_near(weights(method), expected)
        assert method.merge is not None
        method.merge.before(site(method.tuner))
        assert_same(weights(method), second)


def larger(base: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.where(np.abs(second - base) >= np.abs(first - base), second, first)


def test_the_share_that_votes_is_taken_over_all_weights_together() -> None:
    base, first = map(plain, range(2))
    flat = np.concatenate([(first[name] - base[name]).numpy().ravel() for name in base])
    changed = np.concatenate([(value - base[name]).numpy().ravel() for name, value in weights(tuned(TIESConfig(), sessions=1)).items()])
    bound = np.sort(np.abs(flat))[-(int(len(flat) * 0.2) + 1)]
    clear = np.abs(np.abs(flat) - bound) > 1e-7  # a sum with the base rounds
    assert ((np.abs(flat) > bound) == (np.abs(changed) > 1e-7))[clear & (np.abs(flat) > 1e-6)].all()


STREAMING = [TIESConfig(), MagMaxConfig(newest=0.3), MeanConfig(chain="running")]  # the other two: test_lwf, test_wise_ft, test_resume


@pytest.mark.parametrize("config", STREAMING, ids=lambda config: config.kind)
def test_saved_loaded_and_gone_on_with_it_is_as_if_never_stopped(config: MergeConfig, tmp_path: Path) -> None:
    continues_as_if_never_saved(FinetuneConfig(merge=config), SESSIONS, tmp_path / "state.safetensors")


@pytest.mark.parametrize("config", STREAMING, ids=lambda config: config.kind)
def test_killed_half_way_a_session_comes_out_to_the_same_bits(config: MergeConfig, tmp_path: Path) -> None:
    def fresh() -> Recipe:
        return FinetuneConfig(merge=config).build(make.tiny(), 0)

    assert_same(*resumed("finetune", STEPS, tmp_path, 1e-9, fresh, between=False, steps=3))


def test_the_names_in_a_state_are_there_from_the_start_and_the_base_model_is_none_of_them(tmp_path: Path) -> None:
    for config in (MeanConfig(), TIESConfig()):
        before, after = memory(tuned(config, sessions=0)), memory(tuned(config, sessions=1))
        assert before.keys() == after.keys()
        merged = {name for name in after if name.startswith("merge.")}
        assert "merge.base" not in merged and {"merge.learned", "merge.sessions"} < merged
        write_tensors(after, tmp_path / "state.safetensors")
        assert read_tensors(tmp_path / "state.safetensors").keys() == after.keys()


def test_statistics_beside_what_trains_are_merged_and_counters_are_the_last(tmp_path: Path) -> None:
    clip = family("RN", tmp_path)
    method = FinetuneConfig(merge=MeanConfig()).build(clip, 0)
    with torch.no_grad():
        for layer in clip.batch_norms():
            layer.running_mean.fill_(1.0)  # type: ignore[union-attr]
            layer.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    learn(method, SESSIONS[0], FAST.model_copy(update={"batch_norm": "frozen"}), 0)
    for layer in clip.batch_norms():
        assert torch.equal(layer.running_mean, torch.full_like(layer.running_mean, 0.5))  # type: ignore[arg-type]
        assert layer.num_batches_tracked == 7


def test_a_teacher_of_the_session_is_the_model_as_it_was_learned() -> None:
    config = RecipeConfig(terms=({"kind": "clip"}, {"kind": "vocabulary", "texts": 8}), merge=MagMaxConfig())
    method = config.build(make.tiny(), 0)
    learn(method, SESSIONS[0], FAST, 0)
    answered = weights(method)
    method.begin(SESSIONS[1])
    taught = dict(method.teacher("session").weights())
    assert_same(weights(method), {name: value.detach() for name, value in taught.items()})
    assert not torch.equal(taught["model.visual.proj"], answered["model.visual.proj"])


def lora(merge: MergeConfig) -> Recipe:
    return FinetuneConfig(tune=LoRAConfig(rank=2), merge=merge).build(make.tiny().double(), 0).double()


def test_over_lora_the_change_is_scaled_to_the_base_exactly() -> None:
    train = TrainConfig(max_steps=3, batch_size=4, lr=1e-2, device="cpu")
    tuning = FinetuneConfig(tune=LoRAConfig(rank=2)).build(make.tiny().double(), 0).double()
    method = lora(InterpolateConfig(share=0.3, reference="original"))
    for each in (tuning, method):
        learn(each, SESSIONS[0], train, 0)
    base, whole, part = (each.state_dict() for each in (make.tiny().double(), tuning.folded(), method.folded()))  # type: ignore[union-attr]
    moved = [name for name, value in whole.items() if not torch.equal(value, base[name])]
    assert moved
    for name, value in whole.items():
        assert torch.allclose(part[name], torch.lerp(base[name], value, 0.3), atol=1e-12), name


@pytest.mark.parametrize("kind", PARTS["merge"])
def test_over_lora_any_other_merge_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"mean of two products of factors.*reference original"):
        validate(RecipeConfig, {"name": "recipe", "tune": "lora", "merge": kind}, "run.yaml")


@pytest.mark.parametrize("merge", [{"kind": "ties"}, {"kind": "interpolate", "reference": "original"}])
def test_over_what_grows_two_sessions_have_no_mean_and_one_has(merge: dict[str, Any]) -> None:
    grown = {"name": "recipe", "tune": "head"}
    with pytest.raises(ConfigError, match=r"grows from session to session.*ensemble"):
        validate(RecipeConfig, grown | {"merge": merge}, "run.yaml")
    method = validate(RecipeConfig, grown | {"merge": {"kind": "ensemble", "every": 2}}, "run.yaml").build(make.tiny(), 0)
    for session in SESSIONS:
        learn(method, session, FAST, 0)


def test_over_lora_a_model_that_another_method_moved_is_no_base_to_go_back_to() -> None:
    method = lora(InterpolateConfig(reference="original"))
    with torch.no_grad():
        method.clip.model.visual.proj.add_(0.1)  # as a head of another method has it
    with pytest.raises(MethodError, match="another method moved the model under LoRA"):
        learn(method, SESSIONS[0], FAST, 0)


def test_a_mean_along_a_session_is_refused_over_rounds() -> None:
    class Twice(Rounds):
        def lessons(self, first: Any, at: Any) -> Any:
            yield first

    clip = make.tiny()
    tuner = Whole(clip)
    with pytest.raises(MethodError, match=r"merge and rounds: .*begin again"):
        Recipe(clip, 0, tuner=tuner, terms={"clip": Fit(FitConfig())}, merge=EnsembleConfig().build(tuner, 0), rounds=Twice())


def test_a_preset_with_a_merge_and_the_same_recipe_spelled_out_are_spelled_alike() -> None:
    preset = CONFIGS["zscl"](l2=0, texts=9, merge=TIESConfig(keep=0.5))
    spelled = preset.spelled()
    assert spelled["merge"] == {"kind": "ties", "keep": 0.5}
    assert validate(RecipeConfig, {"name": "recipe"} | spelled, "run.yaml").spelled() == spelled
    assert CONFIGS["zscl"]().spelled()["merge"] == {"kind": "ensemble"}
    assert set(PARTS["merge"]) == {"interpolate", "ensemble", "mean", "ties", "magmax"}


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "ties", "keep": 0}, {"kind": "ties", "scaling": 2}, {"kind": "magmax", "newest": -1}, {"kind": "mean", "chain": "both"}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(name for name in wrong if name != "kind")):
        validate(RecipeConfig, {"name": "recipe", "merge": wrong}, "run.yaml")
