"""Training settings that nobody set: what a method's authors do, and what does a model of its size no harm, each with its reason.

And those that somebody set, and that play no part.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cl.config import TrainConfig
from cl.methods.base import Method

LARGE = 50_000_000  # weights that train; the smallest of open_clip's usual models, ViT-S-32, has 63 million
_SMALL_RATE, _PRETRAINED_RATE, _RANDOM_RATE = 1e-4, 1e-5, 5e-4
_SCALE = 100.0  # CLIP's own bound (arXiv:2103.00020, section 2.5)


class Chosen(NamedTuple):
    """A training setting that was not given: its value, and why it is that one; an empty reason is not worth a line."""

    name: str
    value: Any
    why: str

    def __str__(self) -> str:
        return (
            f"train.{self.name} is {self.value:g}: {self.why}"
            if isinstance(self.value, float)
            else f"train.{self.name} is {self.value}: {self.why}"
        )


def told(config: TrainConfig, method: Method) -> tuple[str, ...]:
    """A line for each setting that was chosen for a reason, and one for those that play no part."""
    return (*(str(choice) for choice in choices(config, method) if choice.why), *idle(config, method))


def idle(config: TrainConfig, method: Method) -> tuple[str, ...]:
    """A line about the settings that are not at their defaults and change nothing; none where there is none."""
    given = config.changed("device", "devices", "strategy", "workers", "checkpoint")  # by which no result depends
    if not list(method.trainable()):
        return _line(given, "no weight is trained by gradient steps here") if given else ()
    others = {
        "momentum": config.optimizer == "adamw" and "the optimizer is adamw",
        "betas": config.optimizer == "sgd" and "the optimizer is sgd",
        "eps": config.optimizer == "sgd" and "the optimizer is sgd",
        "epochs": config.max_steps is not None and "max_steps counts the steps",
        "lr": config.lr_epochs is not None and "lr_epochs gives the rates",
        "decay_all": not config.weight_decay and "weight_decay is 0",
        "batch_norm": not method.clip.batch_norms() and "the model has no batch normalisation",
    }
    return tuple(line for name, why in others.items() if why and name in given for line in _line([name], why))


def _line(names: Iterable[str], why: str) -> tuple[str, ...]:
    set_ = [f"train.{name}" for name in names]
    return (f"{', '.join(set_)} {'plays' if len(set_) == 1 else 'play'} no part: {why}",)


def settled(config: TrainConfig, method: Method) -> TrainConfig:
    """The same settings, none of them left open."""
    return config.model_copy(update={choice.name: choice.value for choice in choices(config, method)})


def choices(config: TrainConfig, method: Method) -> Iterator[Chosen]:
    """Every setting that the config leaves open, as it will be for this method and its model."""
    weights = list(method.trainable())
    size = sum(weight.numel() for weight in weights)
    if config.lr is None:
        yield _rate(config, method, size)
    trained = method.clip.random and not {id(weight) for weight in weights}.isdisjoint(id(weight) for weight in method.clip.parameters())
    if config.batch_norm is None:
        why = "the model begins with random weights, and statistics as they began would normalise nothing"
        yield Chosen("batch_norm", "trained", why if method.clip.batch_norms() else "") if trained else Chosen("batch_norm", "frozen", "")
    if config.drop_last is None:
        yield Chosen("drop_last", method.drop_last, "")
    if config.max_logit_scale is None:
        own = method.clip.first_scale
        yield Chosen("max_logit_scale", max(_SCALE, own), "the model came with that scale" if own > 1.001 * _SCALE else "")


def _rate(config: TrainConfig, method: Method, size: int) -> Chosen:
    if size < LARGE:
        return Chosen("lr", _SMALL_RATE, f"{size:,} weights train" if size and not config.lr_epochs else "")
    told = "" if config.lr_epochs else f"{size / 1e6:.0f} million weights train, "
    if method.clip.random:
        return Chosen("lr", _RANDOM_RATE, f"{told}and they begin as noise" if told else "")
    return Chosen("lr", _PRETRAINED_RATE, f"{told}and authors fine-tune pretrained models of this size at 1e-6 to 3e-5" if told else "")
