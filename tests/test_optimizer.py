"""The step size's one cycle, and Muon's steps against the singular values they should have."""

import keras
import numpy as np
import pytest

from cnnviz.optimizer import ConvolutionMuon, one_cycle


@pytest.mark.parametrize("steps", [5, 10, 100])
def test_one_cycle_rises_from_a_tenth_to_the_peak_and_falls_to_zero(steps):
    schedule = one_cycle(0.02, steps)
    rates = np.array([float(schedule(step)) for step in range(steps + 1)])
    assert rates[0] == pytest.approx(0.002) and rates.max() == pytest.approx(0.02)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
    peak = rates.argmax()
    assert peak == steps // 5
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_few_steps_is_finite(steps):
    rates = [float(one_cycle(0.02, steps)(step)) for step in range(steps)]
    assert all(0 < rate <= 0.021 for rate in rates)


# ConvolutionMuon


def step_of(gradient, **options):
    """What one step without decay takes from a kernel, divided by the step size."""
    kernel = keras.Variable(np.zeros(gradient.shape, np.float32))
    optimizer = ConvolutionMuon(0.5, weight_decay=None, adam_weight_decay=None, **options)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    return -kernel.numpy() / 0.5


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (3, 3, 2, 24), (1, 1, 8, 8)])
def test_step_of_a_kernel_has_the_gradients_singular_vectors_and_nearly_equal_values(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    step = step_of(gradient).reshape(-1, shape[-1])
    left, values, right = np.linalg.svd(gradient.reshape(-1, shape[-1]), full_matrices=False)
    scale = 0.2 * max(step.shape) ** 0.5  # as large as a step of Adam (Liu et al. 2025)
    along = left.T @ step @ right.T / scale
    # Five steps of Jordan's polynomial bring each singular value to between 0.7 and 1.2.
    large = values > 0.1 * values[0]
    assert (np.diag(along)[large] > 0.65).all() and (np.diag(along) < 1.25).all()
    np.testing.assert_allclose(along - np.diag(np.diag(along)), 0, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (3, 3, 2, 24), (3, 3, 16, 32)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalising_is_that_of_keras(shape, steps):
    gradient = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ours = ConvolutionMuon().zeropower_via_newtonschulz5(gradient, steps)
    matrix = keras.ops.convert_to_tensor(gradient.reshape(-1, shape[-1]))
    theirs = keras.optimizers.Muon().zeropower_via_newtonschulz5(matrix, steps)
    np.testing.assert_allclose(ours, np.reshape(theirs, shape), atol=2e-5)


def test_everything_but_kernels_takes_the_steps_of_adam():
    gradient = np.array([3.0, -0.01], np.float32)
    np.testing.assert_allclose(step_of(gradient), [1, -1], rtol=1e-3)


def test_muon_survives_saving(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    model.compile(ConvolutionMuon(0.25, ns_steps=3), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    optimizer = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert isinstance(optimizer, ConvolutionMuon) and optimizer.ns_steps == 3
