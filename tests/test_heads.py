"""Probabilities and logits of heads that no sigmoid or softmax ends."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import layers
from cnnviz.diagnosis import check_inputs
from cnnviz.grad_cam import grad_cam
from cnnviz.layers.bounds import bounds
from cnnviz.training import train

ops = keras.ops


def bounds_of(function, *shapes):
    """The bounds of a function of free tensors, as they stand in a graph."""
    found = []

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(s, tf.float32) for s in shapes])
    def call(*tensors):
        found.append(bounds(function(*tensors)))
        return tensors

    call.get_concrete_function()
    return found[0]


INTERVALS = {
    "free": (lambda z: z, (-np.inf, np.inf)),
    "sigmoid": (tf.sigmoid, (0, 1)),
    "one less it": (lambda z: 1 - tf.sigmoid(z), (0, 1)),
    "softmax without its first": (lambda z: tf.nn.softmax(z)[:, 1:], (0, 1)),
    "sum of some of a softmax": (lambda z: tf.reduce_sum(tf.nn.softmax(z)[:, 1:], 1), (0, 1)),
    "sum of some of them twice": (
        lambda z: tf.reduce_sum(tf.gather(tf.nn.softmax(z), [0, 0, 1, 2, 3, 3], axis=1), 1),
        (0, 6),
    ),
    "sum over the pictures": (
        lambda z: tf.reduce_sum(tf.nn.softmax(z)[:, 1:], 0),
        (0, np.inf),
    ),
    "sum of sigmoids": (lambda z: tf.reduce_sum(tf.sigmoid(z), 1), (0, 4)),
    "mean by hand": (lambda z: tf.reduce_sum(tf.sigmoid(z[:, :1]), 1) / 1, (0, 1)),
    "split": (lambda z: tf.split(tf.sigmoid(z), 2, axis=1)[1], (0, 1)),
    "one of a stack": (lambda z: tf.unstack(tf.sigmoid(z), axis=1)[3], (0, 1)),
    "of known shape": (lambda z: tf.ensure_shape(tf.sigmoid(z), (None, 4)), (0, 1)),
    "without a gradient": (lambda z: tf.stop_gradient(tf.tanh(z)), (-1, 1)),
    "bell": (lambda z: tf.exp(-tf.square(z)), (0, 1)),
    "half precision": (
        lambda z: 1 - tf.cast(0.5, tf.bfloat16) * tf.cast(tf.sigmoid(z), tf.bfloat16),
        (0.5, 1),
    ),
    "integers that begin anew": (
        lambda z: tf.cast(tf.cast(tf.sigmoid(z), tf.uint8) - 1, tf.float32),
        (-np.inf, np.inf),
    ),
    "noisy or": (lambda z: 1 - tf.reduce_prod(1 - tf.sigmoid(z), 1), (0, 1)),
    "shrunk": (lambda z: 0.98 * tf.sigmoid(z) + 0.01, (0.01, 0.99)),
    "tanh": (lambda z: (tf.tanh(z) + 1) / 2, (0, 1)),
    "by hand": (lambda z: 1 / (1 + tf.exp(-z)), (0, 1)),
    "clipped": (lambda z: tf.clip_by_value(z, 0.0, 1.0), (0, 1)),
    "hard sigmoid": (ops.hard_sigmoid, (0, 1)),
    "two of opposite sign": (lambda z: tf.sigmoid(z[:, :2]) - 2 * tf.tanh(z[:, 2:]), (-2, 3)),
    "quotient of free numbers": (lambda z: tf.sigmoid(z) / tf.exp(z), (-np.inf, np.inf)),
    "scaled by less than 0": (lambda z: -3 * tf.nn.relu6(z) + 1, (-17, 1)),
    "padded": (lambda z: tf.pad(tf.sigmoid(z) / 2 + 0.5, [[0, 0], [3, 2]]), (0, 1)),
    "padded with": (
        lambda z: tf.pad(tf.sigmoid(z) / 2, [[0, 0], [3, 2]], constant_values=1.0),
        (0, 1),
    ),
    "one or the other": (lambda z: tf.where(z > 0, tf.sigmoid(z), tf.tanh(z)), (-1, 1)),
    "largest of both": (lambda z: tf.maximum(tf.sigmoid(z), tf.tanh(z)), (0, 1)),
    "both beside each other": (lambda z: tf.concat([tf.sigmoid(z), tf.tanh(z)], 1), (-1, 1)),
}


@pytest.mark.parametrize(("function", "expected"), INTERVALS.values(), ids=INTERVALS)
def test_no_value_lies_beyond_its_bounds(function, expected):
    low, high = bounds_of(function, (None, 4))
    np.testing.assert_allclose((low, high), expected, atol=1e-6)
    values = function(tf.constant(np.random.default_rng(0).normal(0, 20, (500, 4)), tf.float32))
    values = np.asarray(values, np.float32)
    assert low - 1e-6 <= np.min(values) and np.max(values) <= high + 1e-6
    if np.isfinite(high - low):  # and they are not much wider
        assert np.max(values) - np.min(values) > 0.15 * (high - low)


def test_a_long_chain_that_branches_ends_soon():
    def branching(z):
        for _ in range(200):
            z = z + 2 * z
        return z

    assert bounds_of(branching, (None, 4)) == (-np.inf, np.inf)


def network(end, filters=6):
    """(the whole model, the one that gives what `end` is applied to)."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(5, 3, activation="relu", name="conv")(inputs)
    before = keras.layers.Conv2D(filters, 1, bias_initializer=keras.initializers.Constant(-2.0))
    scores = before(features)
    return keras.Model(inputs, end(scores)), keras.Model(inputs, scores)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    exp = np.exp(z - z.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


ENDS = {
    "highest of the places": (
        1,
        lambda z: ops.max(ops.sigmoid(z), (1, 2)),
        lambda z: sigmoid(z).max((1, 2)),
    ),
    "highest of several labels": (
        3,
        lambda z: keras.layers.GlobalMaxPooling2D()(ops.sigmoid(z)),
        lambda z: sigmoid(z).max((1, 2)),
    ),
    "noisy or": (
        1,
        lambda z: 1 - ops.prod(1 - 0.1 * ops.sigmoid(z), (1, 2)),
        lambda z: 1 - (1 - 0.1 * sigmoid(z)).prod((1, 2)),
    ),
    "the other class": (
        1,
        lambda z: 1 - ops.sigmoid(ops.mean(z, (1, 2))),
        lambda z: 1 - sigmoid(z.mean((1, 2))),
    ),
    "one of a softmax": (
        2,
        lambda z: ops.softmax(ops.mean(z, (1, 2)))[:, 1:],
        lambda z: softmax(z.mean((1, 2)))[:, 1:],
    ),
    "tanh": (
        1,
        lambda z: (ops.tanh(ops.mean(z, (1, 2))) + 1) / 2,
        lambda z: (np.tanh(z.mean((1, 2))) + 1) / 2,
    ),
    "log-softmax": (
        3,
        lambda z: ops.log_softmax(ops.mean(z, (1, 2))),
        lambda z: softmax(z.mean((1, 2))),
    ),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(("filters", "end", "expected"), ENDS.values(), ids=ENDS)
@pytest.mark.case("arrays and models", "right")
def test_probabilities_that_no_sigmoid_or_softmax_ends(filters, end, expected, policy):
    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, before = network(end, filters)
    finally:
        keras.config.set_dtype_policy(usual)
    wanted = expected(before.predict(images, verbose=0).astype(np.float64))
    found = layers.class_probabilities(model, images)
    rounding = {"float32": 1e-6, "mixed_float16": 1e-3, "mixed_bfloat16": 2**-7}[policy]
    if filters == 3:
        np.testing.assert_allclose(found, wanted, atol=rounding)
    else:
        np.testing.assert_allclose(found[:, 1], wanted[:, 0], atol=rounding)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    result = grad_cam(model, images)
    assert result.class_index.tolist() == found.argmax(1).tolist()
    assert np.isfinite(result.maps).all()


@pytest.mark.case("arrays and models", "right")
def test_the_logit_of_the_highest_place_is_the_highest_logit():
    """The highest of sigmoids is the sigmoid of the highest: both maps must be the same."""
    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    model, _ = network(lambda z: ops.max(ops.sigmoid(z), (1, 2)), 1)
    plain, _ = network(lambda z: ops.max(z, (1, 2)), 1)
    for chosen in (0, 1):
        options = {"class_index": chosen, "layer_name": "conv", "signed": True}
        found, expected = (grad_cam(one, images, **options) for one in (model, plain))
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
        np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-3, atol=1e-7)


@pytest.mark.case("arrays and models", "right")
def test_a_log_softmax_is_explained_by_its_logits():
    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    model, _ = network(lambda z: ops.log_softmax(30 * ops.mean(z, (1, 2))), 3)  # it is sure
    plain, _ = network(lambda z: 30 * ops.mean(z, (1, 2)), 3)
    found, expected = (grad_cam(one, images, layer_name="conv") for one in (model, plain))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-4, atol=1e-6)
    assert expected.maps.max() > 0.01


def test_nothing_is_found_wrong_with_the_inputs_of_such_a_model():
    """Taken for a logit, a probability is above 0, and every answer class 1."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.uniform(0, 120, (60, 16, 16, 3)) + 100 * labels[:, None, None, None]
    inputs = keras.Input((16, 16, 3))
    brightness = keras.layers.Conv2D(1, 1, name="conv")
    model = keras.Model(inputs, ops.max(ops.sigmoid(brightness(inputs)), (1, 2)))
    brightness.set_weights([np.full((1, 1, 3, 1), 0.1), np.array([-44.0])])
    report = check_inputs(model, (images, labels))
    assert report.accuracy == 1 and not report.findings


def test_a_head_in_a_function_of_its_own_is_found():
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.head = keras.layers.Conv2D(6, 3), keras.layers.Dense(1)
            # Built in the function, Keras leaves it with the first weights for ever.
            self.conv.build((None, 16, 16, 3))
            self.head.build((None, 6))

        @tf.function(jit_compile=True)
        def call(self, images):
            return ops.sigmoid(self.head(ops.mean(self.conv(images), (1, 2))) - 2)

    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    model = Compiled()
    expected = model(images).numpy()[:, 0]
    np.testing.assert_allclose(layers.class_probabilities(model, images)[:, 1], expected, rtol=1e-4)
    np.testing.assert_allclose(
        grad_cam(model, images, class_index=1).scores, np.log(expected / (1 - expected)), rtol=1e-4
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_an_ensemble_of_many_is_an_average(policy):
    """Keras adds its members one by one, and a weight for each makes them more than they are."""
    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    heads = [
        keras.layers.Dense(3, activation="softmax", dtype=policy, kernel_initializer="normal")
        for _ in range(100)
    ]
    members = [head(pooled) for head in heads]
    weighted = ops.mean(
        ops.stack(members[:2], 1) * np.array([[[0.4], [1.6]]], heads[0].compute_dtype), 1
    )
    for output in (keras.layers.Average()(members), weighted):
        model = keras.Model(inputs, output)
        expected = ops.cast(model(images), "float32")
        np.testing.assert_allclose(layers.class_probabilities(model, images), expected, atol=1e-6)


@pytest.mark.case("arrays and models", "reported")
def test_a_head_inside_a_saved_model_must_be_told(tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
    network(lambda z: ops.sigmoid(ops.mean(z, (1, 2))), 1)[0].export(tmp_path, verbose=False)
    loaded = keras.layers.TFSMLayer(tmp_path, call_endpoint="serve")
    inputs = keras.Input((16, 16, 3))
    output = loaded(inputs)
    mirrored = loaded(ops.flip(inputs, 2))
    for hidden in (output, ops.mean(ops.stack([output, mirrored]), 0), 1 - output):
        with pytest.raises(ValueError, match="ends in a function that cannot be looked into"):
            layers.class_probabilities(keras.Model(inputs, hidden), images)
    told = keras.Model(inputs, ops.log(output / (1 - output)))
    found = layers.class_probabilities(told, images)
    np.testing.assert_allclose(found[:, 1:], loaded(images), rtol=1e-5)


@pytest.mark.case("arrays and models", "reported")
def test_training_needs_a_logit_and_says_so_of_other_probabilities():
    model, _ = network(lambda z: ops.max(ops.sigmoid(z), (1, 2)), 1)
    images, labels = np.zeros((4, 16, 16, 3), np.float32), np.float32([0, 1, 0, 1])
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    with pytest.raises(ValueError, match="ending in probabilities.* must return one logit"):
        train(model, data, data, epochs=1)


@pytest.mark.case("arrays and models", "reported")
def test_an_output_that_holds_several_is_told_of():
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    heads = [keras.layers.Dense(2)(pooled), keras.layers.Dense(3)(pooled)]
    model = keras.Model(inputs, {"classes": heads, "box": keras.layers.Dense(4)(pooled)})
    with pytest.raises(ValueError, match=r"returns a list .* \(N, classes\)"):
        layers.class_probabilities(model, np.zeros((1, 16, 16, 3)), output_name="classes")
