"""The learning rate's one cycle, and the steps against the methods written out in NumPy."""

import keras
import numpy as np
import pytest

from cnnviz.optimizer import ConvolutionMuon, one_cycle


@pytest.mark.parametrize("steps", [5, 100])
def test_one_cycle_rises_from_a_tenth_to_the_peak_and_falls_to_zero(steps):
    schedule = one_cycle(0.02, steps)
    rates = np.array([float(schedule(step)) for step in range(steps + 1)])
    assert rates[0] == pytest.approx(0.002) and rates.max() == pytest.approx(0.02)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
    peak = rates.argmax()
    assert peak == steps // 5
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    assert all(0 < one_cycle(0.02, few)(step) <= 0.021 for few in (1, 2, 3) for step in range(few))


def newton_schulz(x, steps):
    """As published: https://kellerjordan.github.io/posts/muon."""
    x = x / np.linalg.norm(x)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def muon(kernel, gradients, rate, decay):
    momentum = 0
    for gradient in gradients:
        kernel = kernel * (1 - rate * decay)
        momentum = 0.95 * momentum + gradient
        matrix = (gradient + 0.95 * momentum).reshape(-1, kernel.shape[-1])
        step = newton_schulz(matrix, 3)
        step = step if step.shape == matrix.shape else step.T
        kernel = kernel - rate * 0.2 * max(matrix.shape) ** 0.5 * step.reshape(kernel.shape)
    return kernel


def adamw(weights, gradients, rate, decay):
    mean = square = 0
    for count, gradient in enumerate(gradients, start=1):
        weights = weights * (1 - rate * decay)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        deviation = (square / (1 - 0.999**count)) ** 0.5
        weights = weights - rate * mean / (1 - 0.9**count) / (deviation + 1e-7)
    return weights


def test_steps_are_those_of_muon_for_kernels_and_of_adamw_for_the_rest():
    rng = np.random.default_rng(1)
    shapes = {(3, 3, 4, 6): muon, (3, 3, 2, 24): muon, (6,): adamw, (24, 5): adamw}
    start = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) for shape in shapes] for _ in range(10)]
    variables = [keras.Variable(values.astype(np.float32)) for values in start]
    optimizer = ConvolutionMuon(0.05, weight_decay=0.02)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in step], variables)
    for index, method in enumerate(shapes.values()):
        expected = method(start[index], [step[index] for step in gradients], 0.05, 0.02)
        np.testing.assert_allclose(variables[index].numpy(), expected, atol=1e-3)


def test_the_optimizer_survives_saving(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    model.compile(ConvolutionMuon(0.25, weight_decay=0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    optimizer = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert isinstance(optimizer, ConvolutionMuon) and optimizer.weight_decay == 0.01
