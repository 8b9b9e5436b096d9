"""The distance of two bags of words, by counts: how many they share, and how many each has alone.

Of two texts with `common` equal words, `replaced` pairs, and `small` typos and added words,

    distance = (2 * replaced + min(small, small**2 / 4)) / (common + 2 * replaced + small)

So a replaced word counts on both sides, as in Jaccard's distance. One word more, or one typo, counts a
quarter of a word, because texts that differ in nothing else ask for the same; several count more each.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.integer]


def share_that_differs(
    common: Counts, of_left: Counts, of_right: Counts, typos: Counts | int = 0
) -> npt.NDArray[np.float64]:
    """The distance of each pair, 0..1. of_left, of_right: words of either text that the other lacks.

    typos: how many of these are a typo of a word of the other. Arrays have one shape.
    """
    replaced = np.minimum(of_left, of_right) - typos
    small = typos + np.abs(np.subtract(of_left, of_right))
    differ = 2 * replaced + np.minimum(small, small * small / 4)
    return np.asarray(differ / np.maximum(1, common + 2 * replaced + small), np.float64)
