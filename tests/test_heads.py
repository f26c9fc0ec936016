"""Probabilities and logits, whatever a model ends in, against both by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities

L, ops = keras.layers, keras.ops
IMAGES = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)


def network(end, units=3, scale=1.0, policy="float32"):
    """(a model that ends in `end` of its logits, the same that ends in the logits)."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3))
        features = L.Conv2D(5, 3, activation="relu", name="conv")(inputs)
        logits = L.Dense(units, bias_initializer="normal")(L.GlobalAveragePooling2D()(features))
        logits = scale * (logits - 0.5)  # on both sides of zero
        return keras.Model(inputs, end(logits)), keras.Model(inputs, logits)
    finally:
        keras.config.set_dtype_policy("float32")


@functools.cache
def plain(units, scale):
    """(logits, result for class 0) of the network that ends in its logits."""
    model = network(lambda z: z, units, scale)[0]
    return output_of(model), grad_cam(model, IMAGES, class_index=0, signed=True)


def output_of(model):
    return np.asarray(model(IMAGES), np.float32).astype(float)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    return np.asarray(ops.softmax(z))


def as_layers(activation):
    """In float32 whatever the policy, as Keras advises for mixed precision."""
    return lambda z: L.Activation("linear", dtype="float32")(L.Activation(activation)(z))


HEADS = {  # number of outputs, end, probabilities
    "one logit": (1, lambda z: z, sigmoid),
    "sigmoid": (1, ops.sigmoid, sigmoid),
    "sigmoid layer": (1, as_layers("sigmoid"), sigmoid),
    "hard sigmoid": (1, ops.hard_sigmoid, lambda z: np.clip(z / 6 + 0.5, 0, 1)),
    "hard sigmoid layer": (1, as_layers("hard_sigmoid"), lambda z: np.clip(z / 6 + 0.5, 0, 1)),
    "sigmoids of several labels": (3, ops.sigmoid, sigmoid),
    "logits": (3, lambda z: z, softmax),
    "softmax": (3, ops.softmax, softmax),
    "softmax layer": (3, lambda z: L.Softmax(dtype="float32")(z), softmax),
    "softmax, flattened": (3, lambda z: L.Flatten()(ops.softmax(ops.expand_dims(z, 1))), softmax),
    "log-softmax": (3, ops.log_softmax, softmax),
    "log-softmax layer": (3, as_layers("log_softmax"), softmax),
}


@pytest.mark.parametrize(("units", "end", "probabilities"), HEADS.values(), ids=HEADS)
def test_probabilities_logits_and_maps_of_the_usual_heads(units, end, probabilities):
    for scale in (1.0, 300.0):  # saturated
        logits, expected = plain(units, scale)
        model, _ = network(end, units, scale)
        wanted = probabilities(logits)
        wanted = np.hstack([1 - wanted, wanted]) if units == 1 else wanted
        found = class_probabilities(model, IMAGES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        result = grad_cam(model, IMAGES, class_index=0, signed=True)
        np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.maps, expected.maps, rtol=1e-3, atol=1e-6)
        assert np.abs(result.maps).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_usual_heads_in_half_precision(policy):
    rounding = {"mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}[policy]
    for name in ("one logit", "sigmoid", "hard sigmoid layer", "softmax layer", "log-softmax"):
        units, end, probabilities = HEADS[name]
        model, of_logits = network(end, units, policy=policy)
        logits = output_of(of_logits)
        found = class_probabilities(model, IMAGES)
        np.testing.assert_allclose(found[:, -units:], probabilities(logits), atol=rounding)
        scores = grad_cam(model, IMAGES, class_index=1).scores
        np.testing.assert_allclose(scores, logits[:, int(units > 1)], atol=5 * rounding)


@pytest.mark.parametrize("kind", ["nested", "subclassed"])
def test_heads_inside_nested_and_subclassed_models(shared_network, images, kind):
    model = shared_network(kind, "sigmoid" if kind == "nested" else "sigmoid in call")
    found = class_probabilities(model, images)
    np.testing.assert_allclose(found[:, 1:], model(images), rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


UNKNOWN = {  # heads that nothing tells of: number of outputs, end, whether they lie in 0..1
    "average of sigmoids": (1, lambda z: L.Average()([ops.sigmoid(z), ops.sigmoid(3 * z)]), True),
    "highest of sigmoids": (3, lambda z: ops.max(ops.sigmoid(z), 1, keepdims=True), True),
    "some of a softmax": (3, lambda z: ops.sum(ops.softmax(z)[:, 1:], 1, keepdims=True), True),
    "both classes": (1, lambda z: ops.concatenate([1 - ops.sigmoid(z), ops.sigmoid(z)], 1), True),
    "average of softmaxes": (3, lambda z: L.Average()([ops.softmax(z), ops.softmax(2 * z)]), True),
    "capped": (3, lambda z: 5 * ops.tanh(4 * z), False),
    "percent": (1, lambda z: 100 * ops.sigmoid(z), False),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_head_is_decided_by_its_values(name):
    def look(method, **options):
        with pytest.warns(UserWarning, match="an unknown head: .* To be sure, end it in"):
            return method(model, IMAGES, **options)

    units, end, are_probabilities = UNKNOWN[name]
    for policy, rounding in (("float32", 1e-5), ("mixed_bfloat16", 1e-2)):
        if policy != "float32" and "average" not in name:
            continue
        model, _ = network(end, units, policy=policy)
        given = output_of(model)
        if are_probabilities:
            p = np.hstack([1 - given, given]) if given.shape[1] == 1 else given
            logits = np.log(p) - np.log1p(-p)
        else:
            logits = np.hstack([-given, given]) if given.shape[1] == 1 else given
            p = sigmoid(logits) if given.shape[1] == 1 else softmax(logits)
        np.testing.assert_allclose(look(class_probabilities), p, atol=rounding)
        scores = look(grad_cam, class_index=1).scores
        np.testing.assert_allclose(scores, logits[:, 1], rtol=10 * rounding, atol=10 * rounding)
    model, _ = network(end, units, scale=1000)  # saturated
    result = look(grad_cam, signed=True)
    assert np.isfinite(result.scores).all() and np.isfinite(result.maps).all()
    assert (result.scores > 50).all() or not are_probabilities


def pixel(layer):
    """A convolution of one pixel as a head."""
    return lambda z: L.Flatten()(layer()(L.Reshape((1, 1, 3))(z)))


LINEAR = {
    "sum": lambda z: L.Add()([z, 2 * z]) / 2.5,  # divided by a temperature
    "norm": lambda z: L.BatchNormalization()(z),
    "layer norm": lambda z: L.LayerNormalization()(z),
    "dropout and reshape": lambda z: L.Flatten()(L.Dropout(0.5)(L.Reshape((1, 3))(z))),
    "rescaling in float32": lambda z: L.Rescaling(-2.0, 1.0, dtype="float32")(z),
    "negative and reordered": lambda z: ops.take(-z, [2, 0, 1], axis=1),
    "two heads": lambda z: ops.concatenate([z[:, :1], 2 * z[:, 1:]], axis=1),
    "pooled maximum": lambda z: L.GlobalMaxPooling1D()(L.Dense(3)(L.Reshape((1, 3))(z))),
    "depthwise": pixel(lambda: L.DepthwiseConv2D(1)),
    "transposed": pixel(lambda: L.Conv2DTranspose(3, 1)),
    "in groups": pixel(lambda: L.Conv2D(3, 1, groups=3)),
    "average pooling": pixel(lambda: keras.Sequential([L.Conv2D(3, 1), L.AveragePooling2D(1)])),
    "attention": lambda z: L.Dense(3)(L.Flatten()(L.MultiHeadAttention(1, 2)(*2 * [z[:, None]]))),
    "of sigmoids": lambda z: L.Dense(3)(ops.sigmoid(z)),
}


@pytest.mark.parametrize("end", LINEAR.values(), ids=LINEAR)
def test_linear_heads_are_logits_without_a_warning(end):
    model, _ = network(end)
    found = class_probabilities(model, IMAGES)
    np.testing.assert_allclose(found, softmax(output_of(model)), atol=1e-5)


def test_a_head_that_cannot_be_looked_into_is_an_error_whose_remedy_works(tmp_path):
    source, _ = network(ops.sigmoid, 1)
    source.export(tmp_path, verbose=False)
    inputs = keras.Input((8, 8, 3))
    p = L.TFSMLayer(tmp_path, call_endpoint="serve")(inputs)
    with pytest.raises(ValueError, match=r"cannot be looked into: .* log\(p / \(1 - p\)\)"):
        class_probabilities(keras.Model(inputs, p), IMAGES)
    logits = ops.log(p / (1 - p)), ops.log(ops.concatenate([1 - p, p], axis=1))
    for told in (L.Activation("sigmoid")(logits[0]), L.Softmax()(logits[1])):
        found = class_probabilities(keras.Model(inputs, told), IMAGES)
        np.testing.assert_allclose(found[:, 1:], source(IMAGES), rtol=1e-5)
    decorated = {"call": tf.function(lambda self, images: source(images))}
    model = type("Decorated", (keras.Model,), decorated)()
    model(IMAGES)
    with pytest.raises(ValueError, match="ends in a tf.function.*remove the decorator"):
        class_probabilities(model, IMAGES)


def test_one_of_several_outputs_is_picked():
    z = network(lambda z: z)[0]
    soft, sharp = z.output, 3 * z.output
    listed = keras.Model(z.input, [soft, sharp])
    named = keras.Model(z.input, {"soft": soft, "sharp": sharp, "several": [sharp, sharp]})
    expected = softmax(3 * output_of(z))
    for model, name in ((listed, 1), (listed, listed.output_names[1]), (named, "sharp")):
        found = class_probabilities(model, IMAGES, output_name=name)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for model, name in ((listed, None), (listed, 2), (named, 0), (named, [])):
        with pytest.raises(ValueError, match="`output_name` .* must be one of the outputs of"):
            grad_cam(model, IMAGES, output_name=name)
    with pytest.raises(ValueError, match=r"returns a list; .* \(N, classes\): give keras.Model"):
        class_probabilities(named, IMAGES, output_name="several")
    maps = keras.Model(z.input, z.get_layer("conv").output)
    np.testing.assert_array_equal(extract_activations(listed, IMAGES)["conv"], maps(IMAGES))
    with pytest.raises(ValueError, match=r"returns shape \(None, 6, 6, 5\); a classifier must"):
        class_probabilities(maps, IMAGES)
