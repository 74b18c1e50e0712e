"""Tip-Adapter and CapS-Adapter as their papers have them, but for what is chosen on test images there: caches under their own names."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat

from cl.methods.closed_form.tip import TipConfig


class _Named(TipConfig):
    def spelled(self) -> dict[str, Any]:
        """As the same cache is that says each setting itself."""
        return TipConfig(**{name: getattr(self, name) for name in TipConfig.model_fields if name != "name"}).spelled()


class TipAdapterConfig(_Named):
    """A cache of 16 images a class beside zero-shot, with no training (arXiv:2111.03930).

    The authors search alpha and beta on held-out images, on ImageNet on the test images; here each image that is kept is asked without
    its own key. Features are of the image as it is, where theirs are the mean over ten crops.
    """

    name: Literal["tip_adapter"] = "tip_adapter"  # type: ignore[assignment]
    alpha: NonNegativeFloat | Literal["auto"] = "auto"
    beta: NonNegativeFloat | Literal["auto"] = "auto"


class TipAdapterFConfig(_Named):
    """A cache whose keys are trained for 20 epochs (Tip-Adapter-F, arXiv:2111.03930): those of a session in it, and no others.

    Features are computed once, where the authors crop anew at each step. They choose the epoch on the test images; here it is the last.
    """

    name: Literal["tip_adapter_f"] = "tip_adapter_f"  # type: ignore[assignment]
    keys: Literal["kept", "trained"] = "trained"


class CapSAdapterConfig(_Named):
    """A cache whose keys are half an image's feature and half its caption's (CapS-Adapter, arXiv:2405.16591).

    The captions are those of the data: no model writes them, and no images are generated. The authors search the share with alpha and
    beta, for some sets on the test images, and add a term whose code compares the wrong softmax; that is left out.
    """

    name: Literal["caps_adapter"] = "caps_adapter"  # type: ignore[assignment]
    alpha: NonNegativeFloat | Literal["auto"] = "auto"
    beta: NonNegativeFloat | Literal["auto"] = "auto"
    captions: float = Field(0.5, ge=0, le=1)
