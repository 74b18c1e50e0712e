"""What was learned before the names of tensors changed: methods, settings and training, as plain data that any release can read."""

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "zero_shot": {},
    "finetune": {},
    "replay": {"capacity": 6},
    "replay-class_balanced": {"capacity": 6, "policy": "class_balanced"},
    "vr_lwf": {"texts": 8},
    "mod_x": {},
    "lwf": {},
    "lwf_vr_zscl": {"texts": 8},
    "zscl": {},
    "zscl-ensemble": {"ensemble": 2, "l2": 0.1},
    "ewc": {"samples": 4},
    "ewc-image": {"samples": 4, "part": "image"},
    "wise_ft": {},
    "linear_probe": {},
    "ridge": {},
    "gda": {},
    "cpe_clip": {"depth": 1},
    "pseudolabel": {"iterations": 1, "k": 2, "length": 4},
    "pseudolabel-visual": {"iterations": 1, "k": 2, "length": 4, "modality": "visual"},
}
SINCE: dict[str, dict[str, Any]] = {  # settings whose defaults of then are no longer those
    "ridge": {"penalty": 0.1, "projection": None, "mixed": "zero_shot"},
    "gda": {"alpha": 1.0, "mixed": "zero_shot"},
}
TRAIN: dict[str, Any] = {
    **{"max_steps": 2, "batch_size": 6, "lr": 0.05, "momentum": 0.0, "optimizer": "sgd", "schedule": "constant", "warmup": 0},
    **{"device": "cpu", "drop_last": True},
}
TOWERS: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
ASKED = (0, 1, 2, 3, 6)  # colours; the last was never taught
HALF = ("pseudolabel",)  # methods that want unlabelled rows beside labelled ones


def method(case: str) -> str:
    """The method's name."""
    return case.partition("-")[0]
