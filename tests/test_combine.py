"""What has no meaning is refused by name before anything is learned, and the table about it is what is checked."""

import pytest
import yaml

from cl.errors import ConfigError, EvergreenError
from cl.methods.combine import REFUSALS, Refusal
from cl.plan import build_method, check_session
from cl.run_config import parse_config, train_config
from tests import make

BARE = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}
KEEPING = {"kind": "reservoir", "store": "features"}
NEAR = [  # each has a meaning, though it is near one that has none
    "{name: recipe, terms: [{kind: clip, weight: 0}, infoloob]}",
    "{name: recipe, terms: [clip, vocabulary, l2]}",
    "{name: recipe, tune: head, terms: [clip, {kind: gap, labels: pairs}, {kind: m2mix, labels: pairs}]}",
    "{name: recipe, tune: head, terms: [clip, text_rows, names, l2]}",
    "{name: recipe, terms: [clip, identity, l2, {kind: clip, scale: 10}], rounds: {kind: towers, text: [clip2, l2]}}",
    "{name: recipe, terms: [clip, {kind: clip, scale: 10}]}",
    "{name: recipe, terms: [clip, {kind: vocabulary, texts: 5}, {kind: vocabulary, texts: 6}]}",
    "{name: recipe, terms: [clip, {kind: m2mix, weight: 0}, align]}",
    "{name: recipe, tune: projections, merge: interpolate}",
    "{name: recipe, tune: lora, merge: {kind: interpolate, reference: original}}",
    "{name: vr_lwf, tune: lora}",
    "{name: recipe, terms: [clip, class_texts, text_rows], rounds: {kind: towers, image: [class_texts], text: [text_rows]}}",
    "{name: recipe, terms: [clip, proto_triplet], rounds: {kind: towers, image: [], text: [proto_triplet]}}",
    "{name: recipe, rounds: pseudolabels, merge: interpolate}",
    "{name: recipe, rounds: pseudolabels, terms: [clip, infoloob]}",
    "{name: recipe, rounds: {kind: pseudolabels, restart: mixer}, tune: {kind: prompts, form: multimodal}}",
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what)
def test_what_the_table_says_is_refused_with_its_words(refusal: Refusal) -> None:
    session = make.session(1, (0, 1), (0, 1))
    with pytest.raises(EvergreenError) as caught:
        run = parse_config({**BARE, "method": yaml.safe_load(refusal.example)}, "here")
        check_session(run.method, build_method(run.method, make.tiny(), 0), session, train_config(run, session))
    assert refusal.why in str(caught.value)
    if refusal.met:  # what settings alone can tell is told where they are read
        assert isinstance(caught.value, ConfigError) and str(caught.value).startswith("here: method: ")


@pytest.mark.parametrize("term", ["gap", "m2mix", "primary", "stored", "counterfactual", "alip"])
def test_a_term_about_features_is_refused_where_a_head_leaves_them_as_they_are(term: str) -> None:
    with pytest.raises(ConfigError, match="nothing that is tuned here changes a feature"):
        parse_config({**BARE, "method": {"name": "recipe", "tune": "head", "memory": KEEPING, "terms": ["clip", term]}}, "here")


@pytest.mark.parametrize("term", ["class_texts", "reference", "identity", "clusters", "{kind: proto_triplet, prototypes: images}"])
def test_a_term_that_only_images_could_move_is_refused_where_none_moves(term: str) -> None:
    for tune, told in (("{kind: whole, part: text}", "the image tower is not tuned"), ("whole", "")):
        run = parse_config({**BARE, "method": yaml.safe_load(f"{{name: recipe, tune: {tune}, terms: [clip, {term}]}}")}, "here")
        session = make.session(1, (0, 1), (0, 1), each=12)
        try:
            check_session(run.method, build_method(run.method, make.tiny(), 0), session, train_config(run, session))
        except EvergreenError as error:
            assert told and told in str(error)
        else:
            assert not told


@pytest.mark.parametrize("text", NEAR)
def test_what_is_near_it_is_taken(text: str) -> None:
    parse_config({**BARE, "method": yaml.safe_load(text)}, "here")


@pytest.mark.parametrize("terms", ["[clip]", "[clip, {kind: stored, weight: 0}]"])
def test_features_that_nothing_reads_are_not_stored(terms: str) -> None:
    memory = "memory: {kind: reservoir, store: features}"
    with pytest.raises(ConfigError, match="nothing else reads them; give the recipe both, or neither"):
        parse_config({**BARE, "method": yaml.safe_load(f"{{name: recipe, terms: {terms}, {memory}}}")}, "here")
    parse_config({**BARE, "method": yaml.safe_load(f"{{name: recipe, terms: [clip, stored], {memory}}}")}, "here")


def test_a_preset_with_a_part_changed_is_held_to_the_table_too() -> None:
    with pytest.raises(ConfigError, match="the mean of two products of factors"):
        parse_config({**BARE, "method": {"name": "wise_ft", "tune": "lora"}}, "here")


def test_vectors_of_several_sessions_are_of_one_model() -> None:
    with pytest.raises(ConfigError, match="one model has to make them all"):
        parse_config({**BARE, "method": {"name": "recipe", "terms": ["clip", {"kind": "anchor", "teacher": "session"}]}}, "here")
