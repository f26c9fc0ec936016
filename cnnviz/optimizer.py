"""The rule that takes the steps of a training, and how large each step is."""

import keras

from cnnviz.keras_internals import first_moment
from cnnviz.recipe import ORTHOGONALIZING_STEPS, WARM_UP

MOMENTUM = 0.95
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # Jordan's coefficients: steepest at zero
STEP_SIZE = 0.2  # root mean square of a step's entries: that of Adam's steps (Liu et al. 2025)


@keras.saving.register_keras_serializable("cnnviz")
class ConvolutionMuon(keras.optimizers.AdamW):
    """Muon for the kernels of convolutions, `keras.optimizers.AdamW` for all other weights.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) steps along the momentum
    with all its singular values brought near one. A kernel is a matrix (h * w * in, out).
    """

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        slot = first_moment(self, variable)
        momentum = MOMENTUM * slot + gradient
        self.assign(slot, momentum)
        matrix = keras.ops.reshape(gradient + MOMENTUM * momentum, (-1, variable.shape[-1]))
        step = orthogonalized(matrix) * (STEP_SIZE * max(matrix.shape) ** 0.5)
        self.assign_sub(variable, learning_rate * keras.ops.reshape(step, variable.shape))


def orthogonalized(matrix):
    """Bring all singular values of a matrix near one, by Newton and Schulz's iteration.

    A step turns X into X P, where P = a + b G + c G^2 and G = X^T X, and so G into P G P. The
    product of all P is multiplied up first, since X has many more rows than G: a third of the work.
    """
    matrix = matrix / (keras.ops.norm(matrix) + 1e-7)
    gram = keras.ops.transpose(matrix) @ matrix
    identity = product = keras.ops.eye(gram.shape[0], dtype=gram.dtype)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ORTHOGONALIZING_STEPS):
        step = a * identity + b * gram + c * gram @ gram
        gram, product = step @ gram @ step, product @ step
    return matrix @ product


def one_cycle(peak, steps):
    """Learning rate that rises linearly from a tenth of `peak` and falls to zero by a cosine."""
    rise = max(1, int(steps * WARM_UP))
    options = {"warmup_target": peak, "warmup_steps": rise, "decay_steps": max(1, steps - rise)}
    return keras.optimizers.schedules.CosineDecay(peak / 10, **options)
