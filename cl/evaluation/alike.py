"""Whether images of one class lie near each other: each asks all the others, and no text takes part."""

import numpy as np
from jaxtyping import Float

_BLOCK = 1024  # images that ask at a time: cosines of all with all may not fit
Features = Float[np.ndarray, "n d"]


def among_images(features: Features, labels: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Recall at 1 and mean average precision of an image's class among all other images; NaN where no class has two.

    An image that is the only one of its class has nothing to find and does not ask; the others are found by it all the same. A rank
    is the number of wrong images above, ties counted half, so that features that collapsed find nothing.

    Args:
        features: unit-length features.
        labels: what images have in common, as numbers.
    """
    asked: list[tuple[float, float]] = []
    for start in range(0, len(features), _BLOCK):
        cosines = features[start : start + _BLOCK] @ features.T
        for row, near in enumerate(cosines, start):
            own = labels == labels[row]
            own[row] = False
            if own.any():
                right, wrong = np.sort(near[own])[::-1], np.sort(near[labels != labels[row]])
                above = len(wrong) - (np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")) / 2
                ranks = np.arange(1, len(right) + 1)
                asked.append((float(above[0] < 1), float((ranks / (ranks + above)).mean())))
    recall, precision = np.mean(asked, axis=0) if asked else (np.nan, np.nan)
    return {"image_recall@1": float(recall), "image_map": float(precision)}
