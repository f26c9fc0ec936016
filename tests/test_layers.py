"""What holds for all methods: the user's model stays as it was, and nothing is traced twice."""

import concurrent.futures
import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam

METHODS = {
    "class_probabilities": lambda model, images: layers.class_probabilities(model, images),
    "extract_activations": lambda model, images: extract_activations(model, images)["conv"],
    "grad_cam": lambda model, images: grad_cam(model, images, class_index=1).maps,
    "ascend_filters": lambda model, images: (
        ascend_filters(model, "conv", [1, 4], steps=3, value_range=(0, 1)).images
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Probe(keras.layers.Layer):
    """Passes on what it gets; counts its calls in Python, and fails when told to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls, self.error = 0, None

    def call(self, features):
        self.calls += 1
        if self.error:
            raise self.error("planted")
        return features


@pytest.fixture
def probed_network():
    """(model, probe): a probe before and a dense layer after a convolution of 64 filters."""
    probe = Probe(name="probe")
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.Conv2D(
        64, 3, activation="relu", activity_regularizer="l2", name="conv"
    )(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(probe(features))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(pooled)), probe


# ------------------------------------------------------------------------------- finding layers


def test_names_of_a_nested_model_in_its_order(pooled_network):
    model, convolution, dense = pooled_network("nested twice")
    named = layers.named_layers(model)
    assert list(named) == [
        "backbone",
        "backbone/inner",
        "backbone/inner/conv",
        "pooling",
        "head",
    ]
    assert named["backbone/inner/conv"] is convolution and named["head"] is dense
    assert list(layers.leaf_layers(model)) == ["backbone/inner/conv", "pooling", "head"]


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
def test_names_of_flat_models(pooled_network, kind):
    assert list(layers.named_layers(pooled_network(kind)[0])) == ["conv", "pooling", "head"]


@pytest.mark.case("arrays and models", "right")
def test_one_name_for_two_layers_of_a_subclassed_model(images):
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Rescaling(2.0, name="twin")
            self.second = keras.layers.Rescaling(3.0, name="twin")

        def call(self, images):
            return self.second(self.first(images))

    model = Twins()
    model(images)
    found = extract_activations(model, images)
    assert list(found) == ["twin", "twin'"]
    np.testing.assert_allclose(found["twin'"], images * 6, rtol=1e-6)


@pytest.mark.case("arrays and models", "right")
def test_composite_layer_is_opened(images):
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.double = keras.layers.Rescaling(2.0, name="double")

        def call(self, images):
            return self.double(images) + 1

    model = keras.Sequential([keras.Input((12, 12, 3)), Block()])
    assert list(layers.named_layers(model)) == ["block", "block/double"]
    found = extract_activations(model, images, ["block", "double"])
    np.testing.assert_allclose(found["block/double"] + 1, found["block"])


@pytest.mark.parametrize(
    ("pooling", "expected"), [(False, ["a", "c"]), (True, ["a", "b", "c", "d"])]
)
def test_convolution_layers(pooling, expected):
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(2, 3, name="a"),
            keras.layers.MaxPooling2D(name="b"),
            keras.layers.DepthwiseConv2D(3, name="c"),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(keepdims=True, name="d"),
            keras.layers.GlobalMaxPooling2D(),
        ]
    )
    assert layers.convolution_layers(model, pooling=pooling) == expected


# -------------------------------------------------------------------------------- probabilities


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("functional", "one logit"),
        ("functional", "sigmoid"),
        ("functional", "logits"),
        ("functional", "softmax"),
        ("functional", "softmax layer"),
        ("subclassed", "sigmoid in call"),
        ("nested", "sigmoid"),
    ],
)
@pytest.mark.case("arrays and models", "right")
def test_probabilities_of_every_head(pooled_network, images, kind, head):
    model = pooled_network(kind, head)[0]
    expected = model.predict(images, verbose=0)
    if head == "one logit":
        expected = sigmoid(expected)
    elif head == "logits":
        expected = softmax(expected)
    if expected.shape[1] == 1:
        expected = np.concatenate([1 - expected, expected], axis=1)
    found = layers.class_probabilities(model, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


@pytest.mark.case("arrays and models", "right")
def test_sigmoids_of_several_labels_stay_as_they_are(pooled_network, images):
    model = pooled_network(head="sigmoid", units=3)[0]
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(layers.class_probabilities(model, images), expected, rtol=1e-5)


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.case("arrays and models", "right")
def test_an_ensemble_is_taken_by_its_probabilities(images, units, activation):
    """The score of an average p is its logit, log p - log(1 - p)."""
    if activation == "softmax" and units == 1:
        units = 2
    inputs = keras.Input((12, 12, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    members = [keras.layers.Dense(units, activation)(pooled) for _ in range(3)]
    model = keras.Model(inputs, keras.layers.Average()(members))
    given = model.predict(images, verbose=0)
    expected = np.hstack([1 - given, given]) if units == 1 else given
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    logits = np.log(expected) - np.log1p(-expected)
    result = grad_cam(model, images)
    np.testing.assert_array_equal(result.class_index, expected.argmax(1))
    np.testing.assert_allclose(result.scores, logits.max(1), rtol=1e-3, atol=1e-5)


def ensemble(join, activation, biases):
    """(model, the same with the members' logits in place of `join`): two members on one pooling."""
    inputs = keras.Input((12, 12, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    logits = [
        keras.layers.Dense(len(bias), bias_initializer=lambda *_, bias=bias, **__: bias)(pooled)
        for bias in biases
    ]
    members = [keras.layers.Activation(activation)(one) for one in logits]
    return keras.Model(inputs, join(*members)), keras.Model(inputs, logits)


AVERAGES = {  # and the weight of the first of two members
    "layer": (lambda p, q: keras.layers.Average()([p, q]), 0.5),
    "sum with weights": (lambda p, q: 0.3 * p + q * 0.7, 0.3),
    "of itself": (lambda p, q: ((p + q) / 2 + p) / 2, 0.75),
    "stack": (lambda p, q: keras.ops.mean(keras.ops.stack([p, q]), axis=0), 0.5),
    "concatenation": (
        lambda *ps: keras.ops.mean(
            keras.ops.concatenate([keras.ops.expand_dims(p, 1) for p in ps], 1), axis=1
        ),
        0.5,
    ),
}


@pytest.mark.parametrize("join", AVERAGES)
@pytest.mark.parametrize(
    ("activation", "biases"),
    [
        ("sigmoid", [[18], [25]]),
        ("sigmoid", [[-130], [-120]]),
        ("softmax", [[0, 120, 3], [0, 130, -4]]),
    ],
)
@pytest.mark.case("arrays and models", "right")
def test_score_of_an_ensemble_that_is_sure_is_finite_and_right(images, activation, biases, join):
    join, weight = AVERAGES[join]
    model, of_logits = ensemble(join, activation, [np.array(bias, np.float32) for bias in biases])
    result = grad_cam(model, images)
    members = np.array(of_logits.predict(images, verbose=0), np.longdouble)
    if activation == "sigmoid":
        members = np.concatenate([0 * members, members], axis=-1)
    of_each = np.exp(members - members.max(-1, keepdims=True))
    of_each /= of_each.sum(-1, keepdims=True)
    chances = weight * of_each[0] + (1 - weight) * of_each[1]
    np.testing.assert_array_equal(result.class_index, chances.argmax(1))
    places = np.arange(chances.shape[1]) != chances.argmax(1)[:, None]
    expected = np.log(chances.max(1)) - np.log(np.where(places, chances, 0).sum(1))
    np.testing.assert_allclose(result.scores, expected.astype(float), rtol=1e-4, atol=1e-5)
    assert "zero gradient" not in result.verdicts
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found, chances.astype(float), atol=1e-6)


@pytest.mark.case("arrays and models", "right")
def test_ensemble_of_one_sure_sigmoid_twice_has_the_maps_of_the_member(images):
    bias = np.array([40], np.float32)
    model, _ = ensemble(lambda p, _: keras.layers.Average()([p, p]), "sigmoid", [bias, bias])
    member = keras.Model(model.inputs, model.layers[-2].output)
    expected = grad_cam(member, images, signed=True)
    result = grad_cam(model, images, signed=True)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(result.maps, expected.maps, rtol=1e-4, atol=1e-7)


@pytest.mark.case("arrays and models", "right")
def test_average_over_places_of_sure_sigmoids_has_its_logit(images):
    inputs = keras.Input((12, 12, 3))
    ones = keras.initializers.Constant(1.0)
    logits = keras.layers.Conv2D(1, 3, kernel_initializer=ones, bias_initializer=ones)(inputs)
    chances = keras.layers.Activation("sigmoid")(logits)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(chances))
    against = 1 / (1 + np.exp(keras.Model(inputs, logits).predict(images, verbose=0).astype(float)))
    against = against.mean((1, 2, 3))
    scores = grad_cam(model, images, class_index=1).scores
    np.testing.assert_allclose(scores, np.log1p(-against) - np.log(against), rtol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    "join",
    [
        lambda p, q: keras.layers.Rescaling(100.0)(p),
        lambda p, q: keras.layers.Rescaling(2.0, offset=-1.0)(p),
        lambda p, q: 0.3 * p + 0.8 * q,
        lambda p, q: 1.5 * p + -0.5 * q,
        lambda p, q: p * np.array([1.5, 0.5], np.float32)[: p.shape[1]],
    ],
    ids=["percent", "-1 to 1", "1.1 times", "one below 0", "by class"],
)
@pytest.mark.case("arrays and models", "right")
def test_what_is_no_average_is_taken_as_it_comes(images, activation, join):
    bias = np.zeros(1 if activation == "sigmoid" else 2, np.float32)
    model, _ = ensemble(join, activation, [bias, bias])
    given = model.predict(images, verbose=0)
    given = np.hstack([-given, given]) if activation == "sigmoid" else given
    result = grad_cam(model, images, class_index=1)
    np.testing.assert_allclose(result.scores, given[:, 1], rtol=1e-5)
    found = layers.class_probabilities(model, images)
    assert (found >= 0).all() and (found <= 1).all()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    "join",
    [lambda p, q: 0.5 * p + 0.4 * q + 0.1, lambda p, q: 1 / (1 + p)],
    ids=["and a constant", "ratio"],
)
@pytest.mark.case("arrays and models", "right")
def test_what_cannot_leave_0_to_1_is_a_probability(images, activation, join):
    bias = np.zeros(1 if activation == "sigmoid" else 2, np.float32)
    model, _ = ensemble(join, activation, [bias, bias])
    given = model.predict(images, verbose=0)
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found[:, 1:], given[:, -1:], rtol=1e-5)
    result = grad_cam(model, images, class_index=1)
    np.testing.assert_allclose(result.scores, np.log(given / (1 - given))[:, -1], rtol=1e-3)


# -------------------------------------------------------------------- the user's model is left


def state_of(model):
    """All of a model that a person may have set."""
    found = [model, *layers.named_layers(model).values()]
    optimizer = getattr(model, "optimizer", None)
    return (
        [getattr(layer, "trainable", None) for layer in found],  # an operation has none
        [sorted(vars(layer)) for layer in found],
        [layer.call for layer in found],
        [variable.numpy().tobytes() for variable in model.variables],  # seeds and statistics too
        [variable.numpy().tobytes() for variable in optimizer.variables] if optimizer else None,
        (optimizer, model.compiled, getattr(model, "loss", None)),
        len(model.losses),
    )


@pytest.mark.case("arrays and models", "right")
def test_model_is_left_as_it_was_and_can_still_be_trained(probed_network, images):
    model, _ = probed_network
    model.get_layer("conv").trainable = False
    model.compile("adam", "mse")
    before = state_of(model)
    for method in METHODS.values():
        method(model, images)
        assert state_of(model) == before
    model.fit(images, np.ones((3, 3)), verbose=0)
    model(images)
    assert np.isfinite(float(model.losses[0]))  # of the activity regulariser
    after = state_of(model)
    assert after[3][:2] == before[3][:2] and after[3][2:] != before[3][2:]


@every_method
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.case("arrays and models", "right")
def test_model_is_left_as_it_was_after_an_error_inside_it(probed_network, images, method, error):
    model, probe = probed_network
    model.get_layer("conv").trainable = False
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    probe.error = error
    with pytest.raises(error, match="planted"):
        method(model, images)
    probe.error = None
    assert state_of(model) == before
    assert np.isfinite(method(model, images)).all()


@every_method
@pytest.mark.case("arrays and models", "right")
def test_model_is_left_as_it_was_after_an_error_while_it_runs(pooled_network, images, method):
    """Not while it is traced: the layer refuses numbers, not shapes."""

    class Refusing(keras.layers.Layer):
        def build(self, shape):
            self.limit = self.add_weight(initializer="zeros", trainable=False)

        def call(self, features):
            with tf.control_dependencies([tf.debugging.assert_less(self.limit, 1.0, "planted")]):
                return tf.identity(features)

    inner = pooled_network()[0]
    model = keras.Sequential([keras.Input((12, 12, 3)), Refusing(), *inner.layers[1:]])
    expected = method(model, images)
    model.layers[0].limit.assign(2)
    before = state_of(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match="planted"):
        method(model, images)
    assert state_of(model) == before
    model.layers[0].limit.assign(0)
    np.testing.assert_array_equal(method(model, images), expected)


@every_method
@pytest.mark.case("arrays and models", "right")
def test_augmentation_and_dropout_in_the_model_change_nothing(pooled_network, images, method):
    convolution, *end = pooled_network()[0].layers[1:]
    start = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.5)]
    start += [keras.layers.RandomContrast(0.5), keras.layers.GaussianNoise(1.0)]
    between = [keras.layers.SpatialDropout2D(0.9), keras.layers.Dropout(0.9)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *start, convolution, *between, *end])
    before = state_of(model)
    found = method(model, images)
    assert state_of(model) == before
    np.testing.assert_allclose(found, method(pooled_network()[0], images), rtol=1e-5, atol=1e-6)


@pytest.mark.case("arrays and models", "right")
def test_model_is_left_as_it_was_after_a_wrong_layer(pooled_network, images):
    model = pooled_network("nested")[0]
    before = state_of(model)
    for name in ("nowhere", "pooling"):
        with pytest.raises(ValueError, match="layer_name"):
            grad_cam(model, images, layer_name=name)
        with pytest.raises(ValueError, match="layer_name"):
            ascend_filters(model, name)
    assert state_of(model) == before


@pytest.mark.case("arrays and models", "right")
def test_call_that_a_person_replaced_is_kept(pooled_network, images):
    model, convolution, _ = pooled_network()
    original = convolution.call
    convolution.call = replaced = lambda features: 2 * original(features)
    found = extract_activations(model, images)["conv"]
    assert convolution.call is replaced
    np.testing.assert_allclose(found, 2 * original(images), rtol=1e-5)


# ----------------------------------------------------------------------------- traced functions


@every_method
def test_second_call_traces_nothing(probed_network, images, method):
    model, probe = probed_network
    before = probe.calls
    method(model, images)
    assert probe.calls == before + 1
    method(model, np.concatenate([images, images]))
    assert probe.calls == before + 1


def test_all_filters_of_a_layer_are_one_trace(probed_network):
    model, probe = probed_network
    before = probe.calls
    options = {"value_range": (0, 1)}
    result = ascend_filters(model, "conv", steps=3, batch_size=24, **options)
    assert len(result.filters) == 64
    ascend_filters(model, "conv", [5], steps=4, seed=7, **options)
    assert probe.calls == before + 1


def test_all_classes_are_one_trace(probed_network, images):
    model, probe = probed_network
    before = probe.calls
    for class_index in (None, 0, 2, [0, 1, 2]):
        grad_cam(model, images, class_index=class_index)
    assert probe.calls == before + 1


@every_method
def test_new_weights_count_at_once(pooled_network, images, method):
    model, convolution, _ = pooled_network()
    before = method(model, images)
    convolution.set_weights([-w for w in convolution.get_weights()])
    after = method(model, images)
    fresh = pooled_network()[0]
    fresh.set_weights(model.get_weights())
    assert not np.allclose(before, after, atol=1e-4)
    np.testing.assert_allclose(after, method(fresh, images), rtol=1e-4, atol=1e-6)


@every_method
def test_exchanged_activation_counts_at_once(pooled_network, images, method):
    model, convolution, _ = pooled_network()
    before = method(model, images)
    convolution.activation = keras.activations.softplus
    after = method(model, images)
    fresh, fresh_convolution, _ = pooled_network()
    fresh_convolution.activation = keras.activations.softplus
    assert not np.allclose(before, after, atol=1e-4)
    np.testing.assert_allclose(after, method(fresh, images), rtol=1e-4, atol=1e-6)


@every_method
@pytest.mark.case("arrays and models", "right")
def test_variables_that_a_layer_gets_later_count_at_once(pooled_network, images, method):
    """Those of LoRA, whose product is added to the kernel."""
    model, convolution, _ = pooled_network()
    before = method(model, images)
    convolution.enable_lora(2)
    random = np.random.default_rng(0)
    for factor in (convolution.lora_kernel_a, convolution.lora_kernel_b):
        factor.assign(random.normal(size=factor.shape))
    after = method(model, images)
    fresh, fresh_convolution, _ = pooled_network()
    fresh_convolution.set_weights([convolution.kernel, convolution.bias])
    assert not np.allclose(before, after, atol=1e-4)
    np.testing.assert_allclose(after, method(fresh, images), rtol=1e-3, atol=1e-5)


@pytest.mark.case("arrays and models", "right")
def test_variables_that_quantization_puts_in_place_of_others_count_at_once(pooled_network, images):
    model, _, dense = pooled_network(head="softmax")
    before = layers.class_probabilities(model, images)
    dense.quantize("int8")
    dense.kernel_scale.assign(dense.kernel_scale / 3)
    after = layers.class_probabilities(model, images)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(after, model(images), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (keras.layers.LeakyReLU(0.1), "negative_slope", 0.7),
        (keras.layers.Rescaling(-1.0), "scale", 2.0),
        (keras.layers.AveragePooling2D(2), "strides", (1, 1)),
        (keras.layers.ZeroPadding2D(1), "padding", ((0, 0), (2, 2))),
    ],
)
@pytest.mark.case("arrays and models", "right")
def test_settings_of_a_layer_that_are_exchanged_count_at_once(images, layer, name, value):
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Rescaling(1, -0.5), layer])
    extract_activations(model, images, layer.name)
    setattr(layer, name, value)
    found = extract_activations(model, images, layer.name)[layer.name]
    np.testing.assert_allclose(found, model(images), atol=1e-6)


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "nested"])
def test_model_can_be_forgotten_after_all_methods(pooled_network, images, kind):
    model = pooled_network(kind)[0]
    path = "backbone/conv" if kind == "nested" else "conv"
    layers.class_probabilities(model, images)
    extract_activations(model, images)
    grad_cam(model, images)
    ascend_filters(model, path, [0], steps=1, value_range=(0, 1))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.case("arrays and models", "right")
def test_several_threads_on_one_model_find_what_one_does(pooled_network, images):
    model, convolution, _ = pooled_network()
    expected = {name: method(pooled_network()[0], images) for name, method in METHODS.items()}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = [
            (name, pool.submit(method, model, images))
            for name, method in [*METHODS.items(), *METHODS.items()]
        ]
    for name, result in found:
        np.testing.assert_allclose(result.result(), expected[name], rtol=1e-5, err_msg=name)
    assert "call" not in convolution.__dict__


# ---------------------------------------------------------------------------- mixed precision


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.case("arrays and models", "right")
def test_mixed_precision_gives_finite_float32_near_the_full_precision(
    pooled_network, images, policy
):
    full = pooled_network(head="softmax")[0]
    keras.config.set_dtype_policy(policy)
    try:
        mixed = pooled_network(head="softmax")[0]
    finally:
        keras.config.set_dtype_policy("float32")
    for name, method in METHODS.items():
        found = method(mixed, images)
        assert found.dtype == np.float32 and np.isfinite(found).all(), name
        if name != "ascend_filters":  # its small differences add up
            expected = method(full, images)
            np.testing.assert_allclose(found, expected, atol=0.05 * expected.max(), err_msg=name)
    scores = grad_cam(mixed, images).scores
    np.testing.assert_allclose(scores, grad_cam(full, images).scores, atol=0.05)
    result = ascend_filters(mixed, "conv", [1, 4], steps=10, value_range=(0, 1))
    assert result.verdicts == ("ok", "ok") and result.activations.dtype == np.float32


# ------------------------------------------------------------------------------ checked pictures


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((12, 12)), r"`images` \(of shape \(12, 12\)\) must be \(N, H, W, C\)"),
        (np.zeros((1, 1, 12, 12, 3)), r"must be \(N, H, W, C\) or"),
        (np.zeros((1, 12, 12, 1)), r"must be \(N, 12, 12, 3\) for model"),
        (np.zeros((1, 3, 12, 12)), r"\(1, 3, 12, 12\).*must be \(N, 12, 12, 3\)"),
        (np.zeros((1, 16, 12, 3)), r"must be \(N, 12, 12, 3\)"),
        (np.full((1, 12, 12, 3), np.nan), "`images` holds NaN or infinity"),
        (np.full((1, 12, 12, 3), np.inf), "`images` holds NaN or infinity"),
        (np.full((1, 12, 12, 3), 1e300), "`images` holds NaN or infinity"),
        (np.zeros((1, 0, 12, 3)), r"`images` .of shape \(1, 0, 12, 3\). must have pixels"),
        (np.zeros((1, 12, 12, 3), complex), "of dtype complex128"),
        ("cat.jpg", "of dtype <U7"),
        (None, "of dtype object"),
    ],
)
@pytest.mark.parametrize("name", ["class_probabilities", "extract_activations", "grad_cam"])
@pytest.mark.case("arrays and models", "reported")
def test_wrong_pictures_are_an_error(pooled_network, pictures, message, name):
    with pytest.raises(ValueError, match=message):
        METHODS[name](pooled_network()[0], pictures)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "float16", "bool"])
@pytest.mark.case("arrays and models", "right")
def test_pictures_of_every_number_type_become_float32(pooled_network, dtype):
    pictures = np.random.default_rng(0).integers(0, 2, (2, 12, 12, 3)).astype(dtype)
    found = layers.check_images(pooled_network()[0], pictures)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pictures)


@pytest.mark.case("arrays and models", "right")
def test_pictures_as_tensors_and_lists(pooled_network, images):
    model = pooled_network()[0]
    for pictures in (keras.ops.convert_to_tensor(images), list(images), images.tolist()):
        np.testing.assert_array_equal(layers.check_images(model, pictures), images)
    bfloat16 = keras.ops.cast(images, "bfloat16")
    np.testing.assert_allclose(layers.check_images(model, bfloat16), images, atol=0.01)


@pytest.mark.case("arrays and models", "right")
def test_single_picture_becomes_a_batch(pooled_network, images):
    assert layers.check_images(pooled_network()[0], images[0]).shape == (1, 12, 12, 3)


@pytest.mark.case("arrays and models", "right")
def test_a_stack_of_grey_pictures_is_taken_for_what_it_is():
    model = keras.Sequential([keras.Input((12, 10, 1)), keras.layers.Conv2D(2, 3)])
    pictures = np.random.default_rng(0).uniform(size=(4, 12, 10)).astype(np.float32)
    found = layers.check_images(model, pictures)
    np.testing.assert_array_equal(found, pictures[..., None])
    assert layers.check_images(model, pictures[0, :, :, None]).shape == (1, 12, 10, 1)
    with pytest.raises(ValueError, match=r"of shape \(4, 9, 9\)\) must be \(N, 12, 10, 1\)"):
        layers.check_images(model, np.zeros((4, 9, 9)))


@pytest.mark.case("arrays and models", "right")
def test_a_subclassed_model_is_asked_for_the_pictures_that_it_was_built_with():
    class Grey(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(2, 3, name="conv")

        def call(self, images):
            return self.conv(images)

    model = Grey()
    model(np.zeros((1, 20, 16, 1), np.float32))
    assert layers.picture_shape(model) == (20, 16, 1)
    assert layers.picture_shape(model, 28) == (28, 28, 1)
    result = ascend_filters(model, "conv", 0, steps=2, value_range=(0, 1))
    assert result.images.shape == (1, 20, 16, 1)


@pytest.mark.case("arrays and models", "reported")
def test_a_model_that_takes_integers_is_told_of_where_that_does_not_go():
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    features = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Rescaling(1 / 255)(inputs))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    with pytest.raises(ValueError, match="takes pictures as integers, which have no gradient"):
        ascend_filters(model, "conv")
    pictures = np.random.default_rng(0).uniform(0, 0.99, (2, 12, 12, 3))
    with pytest.warns(UserWarning, match="all the same to model .* integers: in 0..255"):
        layers.class_probabilities(model, pictures)
    layers.class_probabilities(model, 255 * pictures)  # no warning


@pytest.mark.case("arrays and models", "reported")
def test_free_sizes_are_shown_as_letters():
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"must be \(N, H, W, 3\)"):
        layers.check_images(model, np.zeros((1, 9, 9, 4)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: "model.keras", "`model` .of type str. must be a keras.Model"),
        (lambda: keras.layers.Conv2D(2, 3), "of type Conv2D"),
        (lambda: keras.Sequential([keras.layers.Conv2D(2, 3)]), "is not built"),
        (lambda: _functional(inputs=2, outputs=1), "has several inputs"),
        (lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]), "not pictures"),
    ],
)
@every_method
@pytest.mark.case("arrays and models", "reported")
def test_wrong_model_is_an_error(images, build, message, method):
    with pytest.raises(ValueError, match=message):
        method(build(), images)


def _functional(inputs, outputs):
    pictures = [keras.Input((12, 12, 3)) for _ in range(inputs)]
    joined = keras.layers.Add()(pictures) if inputs > 1 else pictures[0]
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, name="conv")(joined))
    return keras.Model(pictures, [keras.layers.Dense(2)(pooled) for _ in range(outputs)])


@pytest.mark.parametrize("name", ["class_probabilities", "grad_cam"])
@pytest.mark.case("arrays and models", "reported")
def test_classifier_has_one_output_of_classes(images, name):
    with pytest.raises(ValueError, match="`output_name` .=None. must be one of"):
        METHODS[name](_functional(inputs=1, outputs=2), images)
    maps = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"returns shape \(None, 10, 10, 2\)"):
        METHODS[name](maps, images)


@pytest.mark.case("arrays and models", "right")
def test_layers_of_a_model_with_several_outputs_can_still_be_seen(images):
    model = _functional(inputs=1, outputs=2)
    assert extract_activations(model, images)["conv"].shape == (3, 10, 10, 2)
    images = ascend_filters(model, "conv", steps=1, value_range=(0, 1)).images
    assert images.shape == (2, 12, 12, 3)


def pooled_features():
    images = keras.Input((8, 8, 3))
    return images, keras.layers.Conv2D(3, 3, name="conv")(images)


@pytest.mark.case("arrays and models", "right")
def test_softmax_before_a_flattening_is_seen_through():
    images, features = pooled_features()
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
    logits = keras.layers.Rescaling(20.0, name="logits")(pooled)
    model = keras.Model(images, keras.layers.Flatten()(keras.layers.Softmax()(logits)))
    pictures = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        layers.class_probabilities(model, pictures), model.predict(pictures, verbose=0), atol=1e-6
    )
    expected = keras.Model(images, logits).predict(pictures, verbose=0)[:, 0, 0]
    np.testing.assert_allclose(grad_cam(model, pictures).scores, expected.max(axis=1), rtol=1e-5)


@pytest.mark.case("arrays and models", "right")
def test_probabilities_put_together_by_hand_are_not_taken_for_logits():
    images, features = pooled_features()
    p = keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(images, keras.ops.concatenate([1 - p, p], axis=1))
    pictures = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        layers.class_probabilities(model, pictures), model.predict(pictures, verbose=0), atol=1e-6
    )


def with_a_function(head):
    """A model whose `call` is a tf.function that ends in `head`; its weights are always these."""

    class Hidden(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(6, 3, kernel_initializer="ones", name="conv")
            self.head = keras.layers.Dense(1, kernel_initializer="ones")

        @tf.function
        def call(self, images):
            return head(self.head(keras.ops.mean(self.conv(images), axis=(1, 2))))

    return Hidden()


@every_method
@pytest.mark.case("arrays and models", "right")
def test_a_tf_function_around_the_layers_changes_nothing(images, method):
    hidden, plain = with_a_function(keras.ops.sigmoid), with_a_function(keras.ops.sigmoid)
    type(plain).call = type(plain).call.python_function
    for model in (hidden, plain):
        model(images)
    np.testing.assert_allclose(method(hidden, images), method(plain, images), rtol=1e-5)


@pytest.mark.case("arrays and models", "reported")
def test_layers_in_a_function_that_decides_by_values_are_told_of(images):
    @tf.function
    def convolve(images):
        features = conv(images)
        if tf.reduce_sum(features) > 0:  # which AutoGraph makes an operation of
            features += 1
        return features

    class Deciding(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.head = conv, keras.layers.Dense(1)

        def call(self, images):
            return self.head(keras.ops.mean(convolve(images), axis=(1, 2)))

    conv = keras.layers.Conv2D(6, 3, name="conv")
    model = Deciding()
    logits = model(images).numpy()[:, 0]
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    for look in (extract_activations, grad_cam):
        with pytest.raises(ValueError, match="layers where they cannot be recorded"):
            look(model, images)


@every_method
@pytest.mark.case("arrays and models", "right")
def test_convolutions_in_groups_work_on_every_processor(images, method):
    """Keras calls them in a function that XLA must compile, since TensorFlow fuses them wrongly."""
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    features = keras.layers.Conv2D(8, 3, groups=4, activation="relu", name="conv")(features)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pooled))
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-6)
    assert np.isfinite(method(model, images)).all()


@pytest.mark.case("arrays and models", "reported")
def test_layers_in_a_condition_are_told_of(images):
    class Choosing(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.head = keras.layers.Conv2D(6, 3, name="conv"), keras.layers.Dense(1)

        def call(self, images):
            positive = keras.ops.sum(images) > 0
            features = keras.ops.cond(
                positive, lambda: self.conv(images), lambda: self.conv(-images)
            )
            return self.head(keras.ops.mean(features, axis=(1, 2)))

    model = Choosing()
    model(images)
    for look in (extract_activations, grad_cam):
        with pytest.raises(ValueError, match="layers where they cannot be recorded"):
            look(model, images)


@every_method
@pytest.mark.case("arrays and models", "right")
def test_looks_are_the_same_where_a_person_runs_functions_eagerly(pooled_network, images, method):
    before = method(pooled_network()[0], images)
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_allclose(method(pooled_network()[0], images), before, rtol=1e-5)
        assert tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    ("end", "inverse"),
    [
        (keras.ops.hard_sigmoid, lambda z: np.clip(z / 6 + 0.5, 0, 1)),
        (
            lambda z: keras.ops.clip(keras.ops.sigmoid(z), 1e-7, 1 - 1e-7),
            lambda z: 1 / (1 + np.exp(-z)),
        ),
    ],
    ids=["hard sigmoid", "clipped sigmoid"],
)
@pytest.mark.case("arrays and models", "right")
def test_other_ways_to_a_probability(images, end, inverse):
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    dense = keras.layers.Dense(1)
    logit = dense(keras.layers.GlobalAveragePooling2D()(features))
    model, of_logit = keras.Model(inputs, end(logit)), keras.Model(inputs, logit)
    dense.bias.assign([-of_logit.predict(images, verbose=0).mean()])  # on both sides of 0
    logits = of_logit.predict(images, verbose=0)[:, 0]
    found = layers.class_probabilities(model, images)
    np.testing.assert_allclose(found[:, 1], inverse(logits), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    for chosen, sign in ((0, -1), (1, 1)):
        result = grad_cam(model, images, class_index=chosen)
        np.testing.assert_allclose(result.scores, sign * logits, atol=1e-5)
        expected = grad_cam(of_logit, images, class_index=chosen).maps
        np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-6)
    assert grad_cam(model, images).class_index.tolist() == (logits > 0).astype(int).tolist()


@pytest.mark.case("arrays and models", "right")
def test_statistics_adapted_after_the_first_call_are_seen():
    normalization = keras.layers.Normalization()
    normalization.adapt(np.zeros((2, 8, 8, 3), np.float32) + [[[[-1, 0, 1]]], [[[1, 2, 3]]]])
    images, _ = pooled_features()
    pooled = keras.layers.GlobalAveragePooling2D()(normalization(images))
    model = keras.Model(images, keras.layers.Dense(2)(pooled))
    pictures = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    before = layers.class_probabilities(model, pictures)
    normalization.adapt(100.0 * pictures)
    after = layers.class_probabilities(model, pictures)
    expected = keras.ops.softmax(model(pictures)).numpy()
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.case("arrays and models", "right")
def test_a_layer_that_holds_its_parent_does_not_loop():
    class Inner(keras.layers.Layer):
        def call(self, images):
            return images

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = Inner(name="inner")
            self.inner.parent = self

        def call(self, images):
            return self.inner(images)

    assert list(layers.named_layers(Outer())) == ["inner"]


@pytest.mark.case("arrays and models", "reported")
def test_pictures_of_different_sizes_are_an_error_with_the_remedy():
    images, features = pooled_features()
    pictures = [np.zeros((8, 8, 3)), np.zeros((9, 8, 3))]
    with pytest.raises(ValueError, match="one size"):
        extract_activations(keras.Model(images, features), pictures)


# --------------------------------------------------------------------- pictures in another range


def preprocessed(*before):
    """A classifier with these layers between the pictures and its first convolution."""
    after = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((12, 12, 3)), *before, *after, keras.layers.Dense(2)])


def adapted(scale):
    normalization = keras.layers.Normalization()
    normalization.adapt(scale * np.random.default_rng(1).uniform(0, 1, (9, 12, 12, 3)))
    return normalization


def by_operations():
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.Conv2D(2, 3, name="conv")(inputs / 127.5 - 1)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(inputs, keras.layers.Dense(2)(pooled))


class Dividing(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.head = keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Dense(2)

    def call(self, images):
        return self.head(keras.ops.mean(self.conv(images / 255), (1, 2)))


def subclassed_dividing():
    model = Dividing()
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model


def nested_rescaling():
    inner = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Rescaling(1 / 255)])
    return preprocessed(keras.layers.RandomFlip(), inner)


TAKE_0_TO_255 = {
    "Rescaling to 0..1": lambda: preprocessed(keras.layers.Rescaling(1 / 255)),
    "Rescaling to -1..1": lambda: preprocessed(keras.layers.Rescaling(1 / 127.5, offset=-1)),
    "Normalization": lambda: preprocessed(adapted(255)),
    "operations": by_operations,
    "subclassed": subclassed_dividing,
    "in a nested model": nested_rescaling,
}
TAKE_0_TO_1 = {
    "nothing": lambda: preprocessed(),
    "Rescaling to -1..1": lambda: preprocessed(keras.layers.Rescaling(2.0, offset=-1)),
    "Normalization": lambda: preprocessed(adapted(1)),
}


def look(name, model, images):
    """Any of the methods; ascent is told the range of the pictures."""
    if name == "ascend_filters":
        return ascend_filters(model, "conv", [0], steps=1, value_range=(0, round(images.max())))
    return METHODS[name](model, images)


@pytest.mark.case("arrays and models", "flagged")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", TAKE_0_TO_255)
def test_pictures_in_0_to_1_for_a_model_that_takes_0_to_255_are_flagged(images, kind, name):
    model = TAKE_0_TO_255[kind]()
    before = state_of(model)
    argument = "value_range" if name == "ascend_filters" else "images"
    with pytest.warns(UserWarning, match=f"`{argument}` .*too small .*takes pictures in 0..255"):
        look(name, model, images)
    assert state_of(model) == before
    look(name, model, 255 * images)  # a warning would be an error
    if name != "ascend_filters":
        look(name, model, 0 * images)  # all black: nothing can be said
        look(name, model, 0 * images + np.float32([0.1, 0.2, 0.3]))  # nor of one colour
    with pytest.warns(UserWarning, match="too small"):  # also after pictures that were right
        look(name, model, images)


@pytest.mark.case("arrays and models", "flagged")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", TAKE_0_TO_1)
def test_pictures_in_0_to_255_for_a_model_that_takes_0_to_1_are_flagged(images, kind, name):
    model = TAKE_0_TO_1[kind]()
    argument = "value_range" if name == "ascend_filters" else "images"
    with pytest.warns(UserWarning, match=f"`{argument}` .*too large .*0..1 perhaps"):
        look(name, model, 255 * images)
    look(name, model, images)
    with pytest.warns(UserWarning, match="too large"):  # also after pictures that were right
        look(name, model, 255 * images)


@pytest.mark.parametrize("name", ["VGG's mean outside", "VGG's mean inside"])
def test_pictures_whose_mean_is_subtracted_are_not_flagged(images, name):
    mean = np.array([103.9, 116.8, 123.7], np.float32)
    if name == "VGG's mean outside":
        layers.class_probabilities(preprocessed(), 255 * images - mean)
    else:
        inside = keras.layers.Rescaling(1.0, offset=(-mean).tolist())
        layers.class_probabilities(preprocessed(inside), 255 * images)


@pytest.mark.case("arrays and models", "flagged")
def test_range_of_one_picture_that_says_nothing_is_not_taken_for_right(images):
    """Without a convolution each pixel is a channel of its own, which one picture shows once."""
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    layers.class_probabilities(model, 255 * images[:1])
    with pytest.warns(UserWarning, match="too large"):
        layers.class_probabilities(model, 255 * images)


@pytest.mark.case("arrays and models", "flagged")
def test_range_is_looked_at_again_where_weights_stand_before_the_first_kernel(images):
    norm = keras.layers.BatchNormalization()
    model = preprocessed(norm)
    layers.class_probabilities(model, images)
    norm.moving_variance.assign([5000.0] * 3)  # as if it had been trained on 0..255
    with pytest.warns(UserWarning, match="too small"):
        layers.class_probabilities(model, images)


# ------------------------------------------------------------- pictures and weights that do not fit


@pytest.mark.case("arrays and models", "reported")
@pytest.mark.parametrize("name", ["class_probabilities", "extract_activations", "grad_cam"])
def test_pictures_that_a_subclassed_model_does_not_take_are_an_error(pooled_network, images, name):
    model = pooled_network("subclassed")[0]
    with pytest.raises(
        ValueError, match=r"cannot be called on `images` of shape \(None, 12, 12, 1\)"
    ):
        METHODS[name](model, images[..., :1])
    assert np.isfinite(METHODS[name](model, images)).all()


@pytest.mark.case("arrays and models", "reported")
@pytest.mark.parametrize("name", ["class_probabilities", "extract_activations", "grad_cam"])
def test_pictures_too_small_for_a_model_of_any_size_are_an_error(images, name):
    convolutions = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Conv2D(2, 3)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None, None, 3)), *convolutions, *head])
    with pytest.raises(ValueError, match=r"`images` of shape \(None, 4, 4, 3\)") as error:
        METHODS[name](model, images[:, :4, :4])
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def with_nan(pooled_network, place):
    model = pooled_network()[0]
    kernel, bias = model.get_layer(place).get_weights()
    kernel.flat[1] = np.nan
    model.get_layer(place).set_weights([kernel, bias])
    return model


@pytest.mark.case("arrays and models", "reported")
@pytest.mark.parametrize("name", ["class_probabilities", "grad_cam", "ascend_filters"])
def test_nan_in_the_weights_is_an_error_that_names_the_layer(pooled_network, images, name):
    with pytest.raises(ValueError, match="NaN or infinity: the weights of its layer 'conv' hold"):
        METHODS[name](with_nan(pooled_network, "conv"), images)


class Scaled(keras.layers.Layer):
    """A composite layer: what another layer puts out, times a weight of its own."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.inner(x) * self.scale


class ScaledModel(keras.Model):
    """The same as a model."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.inner(x) * self.scale


@pytest.mark.parametrize("path", ["outer", "outer/middle", "outer/middle/inner", "whole"])
@pytest.mark.case("arrays and models", "reported")
def test_nan_in_the_own_weight_of_a_composite_is_told_with_its_name(images, path):
    inner = keras.layers.Conv2D(2, 3, name="inner")
    middle = Scaled(inner, name="middle")
    outer = Scaled(middle, name="outer")
    model = ScaledModel(preprocessed(outer), name="whole")
    model(images)
    assert layers.broken_layer(model) is None
    for look in (grad_cam, extract_activations):  # traced before there is a NaN
        look(model, images)
    named = {"whole": model, "outer": outer, "middle": middle, "inner": inner}
    owner = named[path.rsplit("/")[-1]]
    weight = owner.bias if owner is inner else owner.scale
    weight.assign(weight * np.nan)
    assert layers.broken_layer(model).endswith(path)
    for ask in (layers.class_probabilities, grad_cam):
        with pytest.raises(ValueError, match=f"the weights of its layer '[^']*{path}' hold it"):
            ask(model, images)
    for shown in (images, images[:0]):
        with pytest.warns(UserWarning, match=f"the weights of layer '[^']*{path}' hold NaN"):
            extract_activations(model, shown)


@pytest.mark.case("arrays and models", "flagged")
def test_activations_with_nan_are_given_and_flagged(pooled_network, images):
    """They are what one looks at to find where NaN begins."""
    model = with_nan(pooled_network, "head")
    with pytest.warns(UserWarning, match="the weights of layer 'head' hold NaN or infinity"):
        found = extract_activations(model, images, ["conv", "head"])
    assert np.isfinite(found["conv"]).all() and np.isnan(found["head"]).any()


@pytest.mark.case("arrays and models", "flagged")
def test_nan_before_a_relu_is_flagged_though_the_relu_may_hide_it(pooled_network, images):
    """oneDNN's convolution with ReLU makes zeros of NaN."""
    with pytest.warns(UserWarning, match="the weights of layer 'conv' hold NaN or infinity"):
        extract_activations(with_nan(pooled_network, "conv"), images)


@pytest.mark.case("arrays and models", "flagged")
def test_infinity_that_comes_about_in_a_layer_is_flagged(pooled_network, images):
    model = pooled_network()[0]
    convolution, dense = model.get_layer("conv"), model.get_layer("head")
    convolution.set_weights([1e30 * weight for weight in convolution.get_weights()])
    dense.set_weights([1e30 * weight for weight in dense.get_weights()])
    with pytest.warns(UserWarning, match="NaN or infinity comes out of layer 'head', the first"):
        found = extract_activations(model, images, ["conv", "head"])
    assert np.isfinite(found["conv"]).all() and not np.isfinite(found["head"]).all()


@pytest.mark.case("arrays and models", "reported")
def test_infinities_of_both_signs_in_the_weights_are_told(pooled_network, images):
    model, convolution, _ = pooled_network()
    kernel = convolution.kernel.numpy()
    kernel[0, 0, 0, :2] = np.inf, -np.inf
    convolution.kernel.assign(kernel)
    with pytest.raises(ValueError, match="weights of its layer 'conv'"):
        layers.class_probabilities(model, images)


class WithOwnVariables(keras.layers.Layer):
    """Keeps a variable of TensorFlow's, and says so."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)

    @property
    def weights(self):
        return [self.scale]

    def call(self, x):
        return x * self.scale


@pytest.mark.case("arrays and models", "right")
def test_weights_that_are_variables_of_tensorflow(images):
    model = preprocessed(WithOwnVariables())
    assert np.isfinite(layers.class_probabilities(model, images)).all()


@pytest.mark.case("arrays and models", "right")
def test_weights_whose_squares_are_too_large_are_not_called_infinite(pooled_network, images):
    model = pooled_network()[0]
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([np.full_like(kernel, 1e25), bias])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract_activations(model, 1e-3 * images)
    model.get_layer("conv").set_weights([np.full_like(kernel, 3e38), bias])
    assert layers.broken_layer(model) is None
    assert layers.broken_layer(model, np.array([np.inf])) is None


@pytest.mark.case("arrays and models", "right")
def test_no_pictures_give_no_probabilities(pooled_network, images):
    assert layers.class_probabilities(pooled_network()[0], images[:0]).shape == (0, 4)
