"""Classes as people name them, and the sentences that stand for each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassName:
    """A class: its name, and the prompts whose mean text feature stands for it (the first one is trained on)."""

    name: str
    prompts: tuple[str, ...]
