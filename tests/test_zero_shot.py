import pytest
import torch
from torch.nn.functional import normalize

from cl.data.classes import ClassName
from cl.errors import ConfigError
from cl.models.clip import ModelConfig, load
from cl.models.zero_shot import TEMPLATES, class_features, prompts_of

TABLE = {"a cat": [1.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.6, 0.8]}


def tokenize(texts):
    return torch.tensor([[list(TABLE).index(text)] for text in texts])


def encode(tokens):
    return torch.tensor(list(TABLE.values()))[tokens[:, 0]]


def test_a_class_is_the_unit_mean_of_its_prompts_features() -> None:
    classes = [ClassName("dog", ("a dog",)), ClassName("cat", ("a cat", "the cat"))]
    features = class_features(encode, tokenize, classes)
    assert torch.allclose(features, torch.tensor([[0.6, 0.8], [0.5**0.5, 0.5**0.5]]))


def test_a_prompt_given_twice_counts_twice_in_its_class_and_is_encoded_once() -> None:
    asked = []

    def count(tokens):
        asked.extend(tokens[:, 0].tolist())
        return encode(tokens)

    classes = [ClassName("cat", ("a cat", "a cat", "the cat")), ClassName("kitten", ("the cat",)), ClassName("cat again", ("a cat",))]
    features = class_features(count, tokenize, classes, chunk=1)
    assert sorted(asked) == [0, 1]
    assert torch.allclose(features[0], normalize(torch.tensor([2.0, 1.0]), dim=0))
    assert torch.equal(features[1:], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_chunks_change_nothing_on_a_real_text_tower_and_rows_follow_the_order_of_the_classes() -> None:
    clip = load(ModelConfig(name="tiny"))
    classes = [ClassName(name, prompts_of(name, TEMPLATES["photo"])) for name in ("cat", "forklift truck", "ox")]
    with torch.no_grad():
        whole = class_features(clip.encode_text, clip.tokenize, classes)
        pieces = class_features(clip.encode_text, clip.tokenize, classes, chunk=2)
        turned = class_features(clip.encode_text, clip.tokenize, classes[::-1])
        by_hand = normalize(clip.encode_text(clip.tokenize(list(classes[1].prompts))).mean(0), dim=0)
    assert torch.allclose(whole, pieces, atol=1e-6) and torch.allclose(whole, turned.flip(0), atol=1e-6)
    assert torch.allclose(whole[1], by_hand, atol=1e-6)
    assert torch.allclose(whole.norm(dim=-1), torch.ones(3), atol=1e-6)


def test_the_gradient_flows_to_the_text_tower_where_it_is_enabled() -> None:
    clip = load(ModelConfig(name="tiny"))
    classes = [ClassName("cat", ("a cat", "the cat"))]
    class_features(clip.encode_text, clip.tokenize, classes)[0, 0].backward()
    assert clip.model.text_projection.grad.abs().sum() > 0
    with torch.no_grad():
        assert not class_features(clip.encode_text, clip.tokenize, classes).requires_grad


def test_prompts_put_the_name_into_every_template_with_spaces_for_underscores() -> None:
    assert prompts_of("polar_bear", ("a {}!", "{}.")) == ("a polar bear!", "polar bear.")
    assert prompts_of("{curly}", ("a {}.",)) == ("a {curly}.",)


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",)])
def test_a_template_without_one_place_for_the_name_is_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected texts with one {} for the class name"):
        prompts_of("cat", templates)


def test_every_set_of_templates_is_usable_and_without_repeats() -> None:
    for templates in TEMPLATES.values():
        assert len(set(prompts_of("cat", templates))) == len(templates)
