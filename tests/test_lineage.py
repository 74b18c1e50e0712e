"""What is said of where a version comes from, beside what the tests of models and updates hold it to."""

from flows.registry.lineage import _settings

CONFIG = {"name": "birds", "model": {"name": "tiny"}, "stream": {"kind": "collection", "sources": {"inbox": "inbox"}}}


def test_the_settings_of_all_sessions_are_listed_and_not_only_the_last() -> None:
    configs = [{**CONFIG, "method": {"name": "finetune"}}] * 2 + [{**CONFIG, "method": {"name": "replay", "capacity": 7}, "seed": 3}]
    told = _settings(configs)
    assert told["method.name"] == "finetune, then replay" and told["method.capacity"] == "default, then 7"
    assert told["seed"] == "default, then 3" and told["model.name"] == "tiny"


def test_settings_of_another_release_are_listed_as_they_were_recorded() -> None:
    told = _settings([{**CONFIG, "method": {"name": "bygone", "strength": 2}}, {**CONFIG, "method": {"name": "finetune"}}])
    assert told["method.name"] == "bygone, then finetune" and told["method.strength"] == "2, then default"
