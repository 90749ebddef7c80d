"""Which images are worth a query."""

from collections.abc import Sequence, Set

import numpy as np


def select_random(digests: Sequence[str], answered: Set[str], budget: int, seed: int) -> list[int]:
    """Choose up to `budget` distinct images at random; those already answered come first, being free.

    A larger budget with the same seed adds to a smaller one's choice.

    Args:
        digests: Content digest of each image of the pool.
        answered: Digests that the ledger knows.
        budget: How many to choose.
        seed: Of the random order.

    Returns:
        Positions in the pool. Of several images with the same content only one is ever chosen.
    """
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    order = np.random.default_rng(seed).permutation(len(digests))
    distinct = [int(i) for i in order if first[digests[i]] == i]
    free = [i for i in distinct if digests[i] in answered]
    paid = [i for i in distinct if digests[i] not in answered]
    return (free + paid)[:budget]
