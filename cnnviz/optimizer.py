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
        """The same iteration, carried out on the small square matrix of scalar products.

        With G = X^T X, a step X P(G), where P(G) = a + b G + c G^2, turns G into P(G) G P(G). So
        the steps multiply up before X, which has many more rows, is touched: a third of the work.
        """
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        wide = matrix.shape[0] < matrix.shape[1]
        matrix = keras.ops.transpose(matrix) if wide else matrix
        matrix = matrix / (keras.ops.norm(matrix) + 1e-7)
        gram = keras.ops.transpose(matrix) @ matrix
        identity = keras.ops.eye(gram.shape[0], dtype=gram.dtype)
        product = identity
        for _ in range(steps):
            step = self.muon_a * identity + self.muon_b * gram + self.muon_c * gram @ gram
            gram, product = step @ gram @ step, product @ step
        matrix = matrix @ product
        return keras.ops.reshape(keras.ops.transpose(matrix) if wide else matrix, x.shape)

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
