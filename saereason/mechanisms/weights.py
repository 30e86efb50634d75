"""Where an adapter changed the weights."""

from collections import defaultdict

import numpy as np
from jaxtyping import Float

from saereason.model import Model


def weight_change(base: Model, changed: Model) -> Float[np.ndarray, "layer"]:
    """By layer, how far the weights of its block moved: `‖W\' − W‖ / ‖W‖`, Frobenius, over all matrices together.

    Raises ValueError for another architecture.
    """
    if [block.state_dict().keys() for block in base.blocks] != [block.state_dict().keys() for block in changed.blocks]:
        raise ValueError(f"{base.name} and {changed.name} have other weights; give checkpoints of one architecture.")
    moved, whole = defaultdict(float), defaultdict(float)
    for layer, (one, other) in enumerate(zip(base.blocks, changed.blocks, strict=True)):
        for name, weight in one.state_dict().items():
            before, after = weight.double(), other.state_dict()[name].double()
            moved[layer] += float((after - before).square().sum())
            whole[layer] += float(before.square().sum())
    return np.array([(moved[layer] / whole[layer]) ** 0.5 for layer in range(base.n_layers)])
