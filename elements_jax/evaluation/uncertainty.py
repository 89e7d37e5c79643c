"""How sure a mean is: 95 % intervals by the cluster bootstrap, which resamples photographs or scenes, not edits.

Edits of one image share its difficulty, so that as many of them tell less than as many images would.
"""

import numpy as np
from jaxtyping import Float, Shaped

RESAMPLES = 2000


def interval(values: Float[np.ndarray, " n"], images: Shaped[np.ndarray, " n"]) -> tuple[float, float] | None:
    """Return the percentile interval of the mean of some values, each of an edit of one of the images; None for one
    image."""
    names, image = np.unique(images, return_inverse=True)
    if len(names) < 2:
        return None
    total, count = np.bincount(image, values), np.bincount(image)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    low, high = np.quantile((drawn @ total) / (drawn @ count), (0.025, 0.975))
    return float(low), float(high)


def differ(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], images: Shaped[np.ndarray, " n"]) -> bool:
    """Whether the interval of the mean difference of two methods on the same edits excludes zero."""
    found = interval(a - b, images)
    return found is not None and not found[0] <= 0 <= found[1]
