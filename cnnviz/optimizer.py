"""(peak, steps) -> the step size of each step; and the rule that takes the steps."""

import math

import keras

from cnnviz.recipe import WARM_UP


@keras.saving.register_keras_serializable("cnnviz")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon, which leaves convolutions to AdamW, applied to them as their author does.

    A kernel (h, w, in, out) is orthogonalised as the matrix (h * w * in, out).
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        return keras.ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)

    def lr_adjust(self, x):  # the matrix's sides, not the kernel's
        return x * self.rms_rate * max(math.prod(x.shape[:-1]), x.shape[-1]) ** 0.5


def one_cycle(peak, steps):
    """Learning rate that rises linearly from a tenth of `peak` and falls to zero by a cosine."""
    warm_up = max(1, int(steps * WARM_UP))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        warmup_target=peak,
        warmup_steps=warm_up,
        decay_steps=max(1, steps - warm_up),
    )
