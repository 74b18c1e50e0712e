"""Every kind of model that open_clip has: what each method can learn with it, and that it does; docs/reference/models.md has this table."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cl.config import TrainConfig
from cl.errors import MethodError, ModelError
from cl.learning.learner import learn
from cl.methods import CONFIGS, MethodConfig
from cl.methods.features import pixels
from cl.methods.terms.vocabulary import vocabulary_texts
from cl.models.clip import Clip
from cl.models.hugging_face import write
from cl.models.prompted import text_tower
from cl.plan import build_method
from cl.store.bundle import Bundle, read_bundle, write_bundle
from tests import make
from tests.families import FAMILIES, family
from tests.test_every_method import usable

STEP = TrainConfig(max_steps=1, batch_size=4, lr=1e-3, device="cpu")
SMALL = {
    "projection": 40,
    "texts": 4,
    "depth": 2,
    "samples": 4,
    "iterations": 2,
}  # settings that only make a method cheaper, used where it has them
README = Path(__file__).parents[1] / "docs" / "reference" / "models.md"
REFUSED = {  # what a method needs that a family lacks, and what it says then
    "cpe_clip": {
        **dict.fromkeys(("RN", "ConvNeXt", "EVA"), "image prompts need open_clip's vision transformer"),
        **dict.fromkeys(("MobileCLIP", "SigLIP", "CoCa", "HF text tower"), "text prompts need open_clip's causal text transformer"),
    },
    "pseudolabel": dict.fromkeys(
        ("MobileCLIP", "SigLIP", "CoCa", "HF text tower"), "text prompts need open_clip's causal text transformer"
    ),
}
EXPORTED = {"ViT"}  # to the layout of transformers' CLIPModel, which knows no other
CHEAP = [*((name, "finetune") for name in FAMILIES), ("CoCa", "ewc"), ("SigLIP", "vr_lwf"), ("HF text tower", "lwf_vr_zscl")]


def config_of(method: str) -> MethodConfig:
    return CONFIGS[method](**{key: value for key, value in SMALL.items() if key in CONFIGS[method].model_fields})


@pytest.fixture(scope="module", params=FAMILIES)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Clip]]:
    yield request.param, family(request.param, tmp_path_factory.mktemp("family"))


def test_a_method_takes_a_model_or_says_by_name_before_training_why_not(clip: tuple[str, Clip]) -> None:
    name, model = clip
    session = make.session(1, (0, 1), (0, 1))
    for method in CONFIGS:
        reason = REFUSED.get(method, {}).get(name)
        if reason is None:
            build_method(config_of(method), model, 0)
        else:
            with pytest.raises(MethodError, match=f"^{method} cannot learn with this model: {reason}"):
                build_method(config_of(method), model, 0).check(session)


def test_random_texts_are_what_the_tokenizer_itself_would_have_written(clip: tuple[str, Clip]) -> None:
    _, model = clip
    frame = model.frame()
    written = model.tokenizer(["red square"])[0]
    words = written[len(frame.before) : len(frame.before) + 2]
    assert torch.equal(frame.around(words[None])[0], written)
    assert set(words.tolist()) <= set(frame.words.tolist())
    texts = vocabulary_texts(model, 50, 6, torch.Generator().manual_seed(0))
    assert texts.shape == (50, 6 if text_tower(model.model) else 24)
    drawn = texts[:, len(frame.before) : len(frame.before) + 4]
    assert torch.isin(drawn, frame.words).all() and len(drawn.unique()) > 10
    full = frame.around(drawn)
    with torch.no_grad():  # the function that open_clip computes over whole rows
        assert torch.allclose(model.encode_text(texts), torch.nn.functional.normalize(model.model.encode_text(full), dim=-1), atol=1e-5)


def test_random_texts_too_long_for_the_context_are_refused_before_training(clip: tuple[str, Clip]) -> None:
    _, model = clip
    session = make.session(1, (0, 1), (0, 1))
    for method, part in (("vr_lwf", "vocabulary"), ("lwf_vr_zscl", "reference"), ("zscl", "reference")):
        built = CONFIGS[method](length=40).build(model, 0)
        with pytest.raises(MethodError, match=rf"session 1 .*the term {part} learns on random texts, and 38 words do not fit its context"):
            built.check(session)


@pytest.mark.parametrize(("name", "method"), CHEAP)
def test_one_step_is_learned_kept_and_exported(name: str, method: str, tmp_path: Path) -> None:
    one_step(name, method, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_learns_with_every_family_that_it_does_not_refuse(name: str, method: str, tmp_path: Path) -> None:
    if name not in REFUSED.get(method, {}):
        one_step(name, method, tmp_path)


def one_step(name: str, method: str, folder: Path) -> None:
    session, config = usable(method, make.session(1, (0, 1), (0, 1))), config_of(method)
    built = build_method(config, family(name, folder / "files"), 0)
    before = [weight.detach().clone() for weight in built.trainable()]
    learn(built, session, STEP, 0)
    if any(weight.numel() for weight in built.trainable()):  # trained keys are put away by now
        assert any(not torch.equal(old, new) for old, new in zip(before, built.trainable(), strict=False))
    asked, data = make.names((0, 1, 6)), make.table((0, 1), 2, seed=3)
    with torch.no_grad():
        own = built.classify(torch.cat([*pixels(built.clip, data)]), built.class_features(asked)).double().softmax(-1)
    assert bool(own.isfinite().all())
    write_bundle(Bundle(built, config, 0, ("a {} square",), session.vocabulary), folder / "kept")
    shares = read_bundle(folder / "kept").shares([data.image(row) for row in range(len(data))], [known.name for known in asked])
    assert (shares - own).abs().max() < 1e-6
    (folder / "exported").mkdir()
    if name in EXPORTED:
        write(built.clip, folder / "exported")
    else:
        with pytest.raises(ModelError):
            write(built.clip, folder / "exported")


def test_the_table_in_the_readme_is_this_one() -> None:
    rows = ["| | " + " | ".join(FAMILIES) + " |", "|---|" + "---|" * len(FAMILIES)]
    others = [method for method in CONFIGS if method not in REFUSED]
    for title, refused in [(", ".join(f"`{method}`" for method in others), {}), *((f"`{method}`", REFUSED[method]) for method in REFUSED)]:
        rows.append(f"| {title} | " + " | ".join("–" if name in refused else "yes" for name in FAMILIES) + " |")
    assert "\n".join(rows) in README.read_text(encoding="utf-8"), "\n".join(rows)
