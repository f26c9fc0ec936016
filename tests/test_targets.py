"""Targets other than a class, and models that are no classifiers, against analytic maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import ascend_filters, class_probabilities, grad_cam, suspect_labels, targets
from cnnviz.targets import difference, region, regression, similarity

L = keras.layers
CLASSIFICATION = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def linear(shared_network):
    """(model, function from images to its feature map, kernel (6, 4) and bias behind pooling)."""
    model = shared_network("functional", "logits")
    convolution, head = model.get_layer("conv"), model.get_layer("head")
    return model, lambda images: convolution(images).numpy(), *head.get_weights()


def segmentation(activation="softmax", units=3):
    """(model, its feature map of images, kernel (4, units) and bias of each position)."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3))
    convolution = L.Conv2D(4, 3, activation="relu", bias_initializer="random_normal", name="conv")
    end = L.Conv2D(units, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1))
    outputs = L.Activation(activation or "linear")(end(convolution(inputs)))
    model = keras.Model(inputs, outputs)
    kernel, bias = end.get_weights()
    return model, lambda images: convolution(images).numpy(), kernel[0, 0], bias


def test_difference_weighs_the_channels_by_the_difference_of_two_classes(linear, images):
    model, features, kernel, bias = linear
    maps = features(images)
    logits = maps.mean((1, 2)) @ kernel + bias
    a, b = logits.argsort(1)[:, -1], logits.argsort(1)[:, -2]
    for target in difference(), difference(a), difference(a.tolist(), b):
        found = grad_cam(model, images, target=target, signed=True)
        expected = np.einsum("nhwc,nc->nhw", maps, (kernel[:, a] - kernel[:, b]).T) / 25
        np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-6)
        rows = np.arange(3)
        np.testing.assert_allclose(found.scores, logits[rows, a] - logits[rows, b], rtol=1e-4)
        assert found.class_index.tolist() == a.tolist()
    names = ("ant", "bee", "cow", "dog")
    found = grad_cam(model, images, target=difference(1, 3), class_names=names)
    assert found.target == "rather than dog"
    assert set(found.to_frame()["target"]) == {"bee rather than dog"}


@pytest.mark.parametrize("loss", [None, "mse"])
def test_regression_explains_an_output_as_it_is(linear, images, loss):
    model, features, kernel, bias = linear
    model = keras.Model(model.input, model.output)
    model.compile(loss=loss)
    maps = features(images)
    found = grad_cam(model, images, target=regression(2), signed=True)
    np.testing.assert_allclose(found.maps, maps @ kernel[:, 2] / 25, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.scores, (maps.mean((1, 2)) @ kernel + bias)[:, 2], rtol=1e-4)
    assert set(found.class_index) == {-1} and found.target == "output 2"
    with pytest.raises(ValueError, match="regression of output 4. does not fit"):
        grad_cam(model, images, target=regression(4))


def test_regression_of_an_activation_is_not_taken_before_it(images):
    inputs = keras.Input((12, 12, 3))
    maps = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    outputs = L.Dense(1, activation="softplus")(L.GlobalAveragePooling2D()(maps))
    model = keras.Model(inputs, outputs)
    found = grad_cam(model, images, target=regression())
    np.testing.assert_allclose(found.scores, model.predict(images, verbose=0)[:, 0], rtol=1e-5)


@pytest.mark.parametrize(("activation", "units"), [("softmax", 3), ("sigmoid", 1), (None, 3)])
def test_region_explains_the_logit_where_the_class_is_predicted(images, activation, units):
    model, features, kernel, bias = segmentation(activation, units)
    maps = features(images)
    logits = maps @ kernel + bias
    kernel, logits = (np.concatenate([-x, x], -1) if units == 1 else x for x in (kernel, logits))
    chosen = int(np.bincount(logits.argmax(-1).ravel()).argmax())
    given = np.zeros((3, 10, 10), bool)
    given[:, 2:5, 3:9] = True
    for mask, target in (
        (logits.argmax(-1) == chosen, region(chosen)),
        (given, region(chosen, given)),
        (given, region(chosen, given[0])),
    ):
        found = grad_cam(model, images, target=target, method="hires-cam", signed=True)
        assert found.layer_name == "conv"  # not the segmentation itself
        share = mask / mask.sum((1, 2), keepdims=True)
        np.testing.assert_allclose(found.scores, (logits[..., chosen] * share).sum((1, 2)), 1e-4)
        expected = maps @ kernel[:, chosen] * share
        np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-6)


def test_region_where_the_class_is_nowhere_predicted_is_the_whole_output(images):
    model, features, kernel, bias = segmentation()
    logits = features(images) @ kernel + bias
    absent = int(np.bincount(logits.argmax(-1).ravel(), minlength=3).argmin())
    found = grad_cam(model, images, target=region(absent))
    rows = ~(logits.argmax(-1) == absent).any((1, 2))
    expected = logits[..., absent].mean((1, 2))
    np.testing.assert_allclose(found.scores[rows], expected[rows], rtol=1e-4)


def test_similarity_is_a_cosine_and_its_map_that_of_a_tape(images):
    inputs = keras.Input((12, 12, 3))
    maps = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, L.UnitNormalization()(L.Dense(5)(L.Flatten()(maps))))
    convolution, *_, dense, _ = model.layers[1:]
    references = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for reference in references[0], references:
        found = grad_cam(model, images, target=similarity(reference), signed=True)
        with tf.GradientTape() as tape:
            features = convolution(images)
            tape.watch(features)
            vectors = dense(tf.reshape(features, (3, -1)))
            lengths = tf.norm(vectors, axis=1) * tf.norm(tf.constant(reference), axis=-1)
            cosine = tf.reduce_sum(vectors * reference, 1) / lengths
        slopes = tape.gradient(cosine, features)
        expected = tf.reduce_sum(tf.reduce_mean(slopes, (1, 2), keepdims=True) * features, 3)
        np.testing.assert_allclose(found.scores, cosine, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"`reference` .of shape \(7,\). must have the shape"):
        grad_cam(model, images, target=similarity(np.ones(7)))


def test_any_function_of_the_output_is_a_target(linear, images):
    model, features, kernel, _ = linear
    both = keras.Model(model.input, {"logits": model.output, "twice": 2 * model.output})

    def spread(output):
        return output["twice"][:, 0] - output["logits"][:, 3]

    found = grad_cam(both, images, target=spread, signed=True)
    expected = features(images) @ (2 * kernel[:, 0] - kernel[:, 3]) / 25
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-6)
    assert found.target == "spread"
    one = grad_cam(both, images, target=lambda output: output[:, 0], output_name="twice")
    np.testing.assert_allclose(one.scores, both.predict(images, verbose=0)["twice"][:, 0], 1e-4)


def test_ascent_climbs_a_target(linear):
    model, *_ = linear
    target = difference(2, 0)
    found = ascend_filters(model, target=target, steps=8, value_range=(0, 1))
    logits = model.predict(found.images, verbose=0)
    np.testing.assert_allclose(found.activations, logits[:, 2] - logits[:, 0], rtol=1e-3, atol=1e-4)
    assert found.activations[0] > found.start_activations[0] and found.verdicts == ("ok",)
    same = ascend_filters(model, target=lambda y: y[:, 2] - y[:, 0], steps=8, value_range=(0, 1))
    np.testing.assert_allclose(same.images, found.images, atol=1e-4)
    corner = region(1, np.pad(np.ones((3, 4), bool), [(0, 7), (0, 6)]))
    model = keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(2, 3)])
    found = ascend_filters(model, target=corner, steps=8, value_range=(0, 1))
    logits = model.predict(found.images, verbose=0)[:, :3, :4, 1].mean((1, 2))
    np.testing.assert_allclose(found.activations, logits, rtol=1e-4, atol=1e-5)
    assert found.verdicts == ("ok",)


WRONG = [
    ({"target": "cat"}, "`target` .='cat'. must be one of `cnnviz.targets`"),
    ({"target": lambda output: output}, r"`target` .which returns \(None, 4\). must return one"),
    ({"target": difference(0, 1), "class_index": 0}, "give `target` .* or `class_index`"),
    ({"target": difference(0, 9)}, r"`target` .=9. must be in \[0, 4\)"),
    ({"target": difference([0, 1], 2)}, r"shape \(2,\). must have one for all images, or"),
    ({"target": region(0)}, r"a region. needs an output .N, h, w, classes."),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_target_is_an_error(linear, images, options, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(linear[0], images, **options)


def test_wrong_mask_and_reference_are_errors(images):
    with pytest.raises(ValueError, match=r"`mask` .of shape \(8, 8\). must have the output's"):
        grad_cam(segmentation()[0], images, target=region(1, np.ones((8, 8), bool)))
    with pytest.raises(ValueError, match="`mask` .int64, "):
        region(1, np.ones((8, 8), int))
    with pytest.raises(ValueError, match="`reference` .* must be finite"):
        similarity([0, 0])


# Models that are no classifiers


def no_classifier(end, loss=None):
    inputs = keras.Input((12, 12, 3))
    maps = L.Conv2D(4, 3, activation="relu")(inputs)
    outputs = end(L.GlobalAveragePooling2D()(maps))
    model = keras.Model(inputs, outputs)
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        (L.Dense(1), "mse"),
        (L.Dense(3), keras.losses.Huber()),
        (L.Dense(1), keras.losses.mean_absolute_error),
        (L.Dense(1), ["mean_squared_error"]),
        (L.Dense(1, activation="relu"), None),
        (L.Dense(2, activation="softplus"), None),
        (lambda x: L.UnitNormalization()(L.Dense(5)(x)), None),
        (lambda x: keras.ops.normalize(L.Dense(5)(x)), None),
    ],
)
def test_regression_and_embedding_have_no_classes(images, end, loss):
    model, labels = no_classifier(end, loss), [0, 1, 1]
    for call in (
        lambda: class_probabilities(model, images),
        lambda: grad_cam(model, images),
        lambda: suspect_labels(model, (images, labels), n_folds=2),
    ):
        with pytest.raises(ValueError, match=r"is no classifier.*target=cnnviz.targets.regression"):
            call()
    assert grad_cam(model, images, target=regression()).maps.shape == (3, 10, 10)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [("sigmoid", "mse"), ("softmax", "mae"), (None, CLASSIFICATION), ("tanh", "hinge")],
)
def test_classifier_is_not_taken_for_a_regression(images, activation, loss):
    model = no_classifier(L.Dense(4, activation=activation), loss)
    if activation == "tanh":
        with pytest.warns(UserWarning, match="an unknown head"):
            assert class_probabilities(model, images).shape == (3, 4)
    else:
        assert class_probabilities(model, images).shape == (3, 4)


def test_labels_of_several_classes_are_an_error_that_says_what_to_do(images):
    model = no_classifier(L.Dense(3, activation="sigmoid"), "binary_crossentropy")
    with pytest.raises(ValueError, match="where an image has several classes, give one column"):
        suspect_labels(model, (images, [[1, 1, 0], [0, 0, 0], [0, 1, 1]]))


def test_targets_have_no_state(linear, images):
    """The same target explains models and batches one after the other."""
    target, model = targets.difference(0), linear[0]
    first = grad_cam(model, images, target=target)
    many = grad_cam(model, np.repeat(images, 20, axis=0), target=target)
    np.testing.assert_allclose(many.maps[::20], first.maps, rtol=1e-5, atol=1e-7)
