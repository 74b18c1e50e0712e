"""ZSCL and LwF-VR of the ZSCL code: whose texts, whose images, which teacher."""

from pathlib import Path

import pytest
import torch

from cl.config import TrainConfig, validate
from cl.data.table import ImageTable, write
from cl.errors import ConfigError, DataError, MethodError
from cl.learning.learner import learn
from cl.methods.base import Batch, Method
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.zscl import AskingConfig, LwFVRZSCLConfig, ZSCLConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.reference import Reference
from cl.methods.view import View
from cl.models.clip import Clip
from cl.streams.stream import Session
from tests import make
from tests.test_lwf import FAST, batch_of, continues_as_if_never_saved, kl, loss_of, shaken


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder: captioned images, images with labels only, and images with a test split alone."""
    write({"train": make.table((4, 5), 3, seed=7, captions=True)}, tmp_path / "pairs")
    write({"train": make.table((6, 7), 3, seed=8)}, tmp_path / "images")
    write({"test": make.table((6,), 3, seed=9)}, tmp_path / "tests")
    return tmp_path


def built(config: AskingConfig, data: Path | None = None, seed: int = 0) -> Recipe:
    return (config.located(data) if data else config).build(make.tiny(), seed)


def asked(method: Recipe) -> Reference:
    """The term that asks the teacher."""
    term = method.terms["reference"]
    assert isinstance(term, Reference)
    return term


def drawn(method: Recipe, session: Session) -> torch.Tensor:
    """Tokens of the texts of a session."""
    return asked(method).drawn(method.tuner, session.index)


def images_of(method: Recipe, batch: Batch) -> torch.Tensor | None:
    """The reference images of a step."""
    assert method.lesson
    return asked(method).pixels(View(batch, method.lesson, method.tuner, method.seed))


def pixels(clip: Clip, table: ImageTable) -> torch.Tensor:
    transform = clip.transform()
    return torch.stack([transform(table.image(row)) for row in range(len(table))])


def test_the_defaults_are_those_of_the_authors_scripts() -> None:
    zscl, lwf_vr = ZSCLConfig(), LwFVRZSCLConfig()
    for config in (zscl, lwf_vr):
        assert (config.temperature, config.image_weight, config.text_weight, config.smoothing) == (2, 1, 1, 0.2)
        assert (config.texts, config.length) == (1000, 12)  # ten words between start and end
    assert (zscl.teacher, zscl.ensemble, zscl.l2) == ("original", 100, 1)
    assert (lwf_vr.teacher, lwf_vr.ensemble, lwf_vr.l2) == ("session", None, 0)


def test_random_texts_are_drawn_once_per_session_and_again_alike_after_a_restart() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    one, two, other = built(LwFVRZSCLConfig(texts=30)), built(LwFVRZSCLConfig(texts=30)), built(LwFVRZSCLConfig(texts=30), seed=1)
    texts = drawn(one, first)
    assert torch.equal(texts, drawn(two, first))
    assert not torch.equal(texts, drawn(one, second)) and not torch.equal(texts, drawn(other, first))
    assert texts.shape == (30, 12) and (texts[:, 0] == one.clip.sot).all() and (texts[:, -1] == one.clip.eot).all()
    assert texts[:, 1:-1].max() < one.clip.sot


def test_the_terms_are_those_of_plain_loops_over_reference_images_and_captions(data: Path) -> None:
    method = ZSCLConfig(reference="pairs", smoothing=0, l2=0).located(data).build(make.tiny().double(), 0)
    session = make.session(1, (0, 1), (0, 1))
    method.begin(session)
    shaken(method)
    batch = batch_of(method, session, rows=6)
    table = make.table((4, 5), 3, seed=7, captions=True)
    with torch.no_grad():
        terms = method.losses(batch)
        images = pixels(method.clip, table).double()
        old = method.teacher("original").clip
        texts = old.encode_text(method.clip.tokenize(list(dict.fromkeys(t for each in table.captions for t in each))))
        # all six rows are asked about, in whatever order; neither term depends on it
        student, teacher = ((method.clip.scale() * c.encode_image(images) @ texts.T).numpy() for c in (method.clip, old))
        plain = FinetuneConfig().build(method.clip, 0)
        plain.begin(session)
        assert terms["classify"].item() == pytest.approx(plain.losses(batch)["classify"].item(), rel=1e-12)
    assert student.shape == (6, 8)
    assert terms["keep_images"].item() == pytest.approx(kl(teacher, student, 2), rel=1e-9)
    assert terms["keep_texts"].item() == pytest.approx(kl(teacher.T, student.T, 2), rel=1e-9)


def test_the_gradient_passes_through_the_image_tower_alone(data: Path) -> None:
    method, session = built(ZSCLConfig(reference="pairs"), data), make.session(1, (0, 1), (0, 1))
    method.begin(session)
    shaken(method)
    terms = method.losses(batch_of(method, session))
    (terms["keep_images"] + terms["keep_texts"]).backward()
    for name, parameter in method.clip.model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("visual."), name
    assert method.clip.model.visual.proj.grad.abs().sum() > 0
    assert all(p.grad is None for p in method.teacher("original").clip.parameters())


def test_zscl_asks_the_original_model_and_lwf_vr_the_one_before_the_session() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    original = make.tiny().state_dict()
    for config, expected in ((ZSCLConfig(texts=9, ensemble=2), True), (LwFVRZSCLConfig(texts=9), False)):
        method = built(config)
        learn(method, first, FAST, 0)
        learned = {name: value.clone() for name, value in method.clip.state_dict().items()}
        method.begin(second)
        teacher = method.teacher(config.teacher).clip.state_dict()
        assert all(torch.equal(teacher[name], value) for name, value in (original if expected else learned).items())
        assert not torch.equal(learned["model.visual.proj"], original["model.visual.proj"])


def test_without_a_reference_the_images_are_the_batch_and_the_texts_random() -> None:
    method, session = built(ZSCLConfig(texts=9)), make.session(1, (0, 1), (0, 1))
    method.begin(session)
    batch = batch_of(method, session)
    assert images_of(method, batch) is None and asked(method)._texts.shape[0] == 9
    assert method.sources() == ("", "")


def test_every_reference_image_comes_up_once_before_any_comes_up_again(data: Path) -> None:
    method, session = built(LwFVRZSCLConfig(reference="images", texts=9), data), make.session(1, (0, 1), (0, 1))
    method.begin(session)
    known = pixels(method.clip, make.table((6, 7), 3, seed=8))

    def rows(step: int) -> list[int]:
        pictures = images_of(method, batch_of(method, session, rows=2, step=step))
        return [int((known - image).abs().flatten(1).sum(1).argmin()) for image in pictures]

    first, second = ([row for step in steps for row in rows(step)] for steps in ((0, 1, 2), (3, 4, 5)))
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    assert rows(1) == first[2:4]  # what a step sees follows from its number


def test_a_reference_smaller_than_the_batch_is_taken_whole(data: Path) -> None:
    method, session = built(LwFVRZSCLConfig(reference="images", texts=9), data), make.session(1, (0, 1), (0, 1))
    method.begin(session)
    assert len(images_of(method, batch_of(method, session, rows=10))) == 6


def test_captions_come_from_the_sentences_else_from_the_reference_else_texts_are_random(data: Path) -> None:
    session = make.session(1, (0, 1), (0, 1))
    both = built(LwFVRZSCLConfig(reference="images", sentences="pairs"), data)
    pairs = built(LwFVRZSCLConfig(reference="pairs"), data)
    captions = {"a purple square", "a orange square"} | {f"{c} number {i}" for c in ("purple", "orange") for i in range(3)}
    for method in (both, pairs):
        tokens = drawn(method, session)
        assert {tuple(row) for row in tokens.tolist()} == {tuple(row) for row in method.clip.tokenize(sorted(captions)).tolist()}
    assert len(drawn(built(LwFVRZSCLConfig(reference="pairs", captions=5), data), session)) == 5
    assert drawn(built(LwFVRZSCLConfig(reference="images", texts=9), data), session).shape == (9, 12)


def test_the_reference_data_is_part_of_what_it_learns_from(data: Path) -> None:
    images, pairs = make.table((6, 7), 3, seed=8).digest(), make.table((4, 5), 3, seed=7, captions=True).digest()
    assert built(LwFVRZSCLConfig(reference="images", sentences="pairs"), data).sources() == (images, pairs)
    assert built(LwFVRZSCLConfig(reference="pairs"), data).sources() == (pairs, pairs)


def test_a_relative_path_starts_at_the_data_folder_and_an_absolute_one_stays(data: Path) -> None:
    located = ZSCLConfig(reference="images", sentences=str(data / "pairs")).located(Path("root"))
    assert located.reference == str(Path("root") / "images") and located.sentences == str(data / "pairs")
    assert ZSCLConfig().located(data) == ZSCLConfig()


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"reference": "nothing"}, DataError, "does not exist"),
        ({"reference": "tests"}, DataError, "no split 'train'"),
        ({"sentences": "images"}, MethodError, "none of its 6 rows has a caption"),
    ],
)
def test_reference_data_that_cannot_be_used_is_told_before_learning(
    settings: dict[str, str], error: type[Exception], told: str, data: Path
) -> None:
    with pytest.raises(error, match=told):
        built(LwFVRZSCLConfig(**settings), data).check(make.session(1, (0, 1), (0, 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"ensemble": 0}, {"smoothing": 1.0}, {"l2": -1}, {"length": 2}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        validate(ZSCLConfig, {"name": "zscl", **settings}, "run.yaml")


def test_captioned_sessions_can_be_learned_too() -> None:
    first = make.stream((0, 1), labels=False, captions=True).sessions[0]
    method = built(LwFVRZSCLConfig(texts=9))
    assert learn(method, first, FAST, 0).steps == 3
    assert not torch.equal(method.clip.model.visual.proj, make.tiny().model.visual.proj)


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(data: Path) -> None:
    config = ZSCLConfig(reference="pairs", ensemble=2).located(data)
    method = continues_as_if_never_saved(config, make.stream((0, 1), (2, 3)).sessions, data / "state.safetensors")
    # what it was asked about, and the teacher, are not part of the memory
    assert {name.split(".")[0] for name in method.state_dict()} == {"clip"}


def drift_of(method: Method) -> float:
    """Mean change of the cosines of images and texts that nothing taught."""
    with torch.no_grad():
        images = pixels(method.clip, make.table((6, 7), 4, seed=99))
        texts = method.clip.tokenize([f"a {colour} square" for colour in make.COLOURS])
        before, now = (clip.encode_image(images) @ clip.encode_text(texts).T for clip in (make.tiny(), method.clip))
    return (before - now).abs().mean().item()


def test_it_learns_and_what_nobody_taught_moves_less_than_in_fine_tuning() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2), each=4)
    train = TrainConfig(max_steps=6, batch_size=6, lr=1e-3, device="cpu")
    untaught = loss_of(FinetuneConfig().build(make.tiny(), 0), session)
    for seed in range(3):
        plain, kept = FinetuneConfig().build(make.tiny(), seed), ZSCLConfig(texts=30, ensemble=3).build(make.tiny(), seed)
        for method in (plain, kept):
            learn(method, session, train, seed)
        assert loss_of(kept, session) < untaught
        assert drift_of(kept) < 0.6 * drift_of(plain)
