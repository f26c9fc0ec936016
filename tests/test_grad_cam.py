"""Heat maps against class activation maps, finite differences and gradients of cut models."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.grad_cam import METHODS, SIGNED_METHODS, grad_cam
from cnnviz.layers import class_probabilities
from cnnviz.model import build_model

L = keras.layers
KINDS = ("functional", "sequential", "subclassed", "nested", "nested twice")
HEADS = ("one logit", "sigmoid", "logits", "softmax", "softmax layer")
CASES = (
    [(kind, "one logit") for kind in KINDS]
    + [(kind, "softmax") for kind in KINDS]
    + [("functional", head) for head in ("sigmoid", "logits", "softmax layer")]
    + [("subclassed", "sigmoid in call")]
)


def class_activation_map(convolution, dense, images, chosen):
    """Zhou et al. 2016: (maps, logits) of one class, straight from the weights."""
    features = convolution(images).numpy()
    kernel, bias = dense.get_weights()
    if kernel.shape[1] == 1:  # one output is the logit of class 1, its negative that of class 0
        kernel, bias = kernel * [[-1, 1]], bias * [-1, 1]
    maps = np.maximum(features @ kernel[:, chosen], 0) / np.prod(features.shape[1:3])
    return maps, features.mean((1, 2)) @ kernel[:, chosen] + bias[chosen]


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_map_is_the_class_activation_map(pooled_network, images, kind, head):
    model, convolution, dense = pooled_network(kind, head)
    for chosen in range(max(2, dense.units)):
        maps, logits = class_activation_map(convolution, dense, images, chosen)
        result = grad_cam(model, images, class_index=chosen)
        np.testing.assert_allclose(result.maps, maps, rtol=1e-4, atol=1e-4 * maps.max())
        np.testing.assert_allclose(result.scores, logits, rtol=1e-4, atol=1e-5)
        assert result.layer_name.split("/")[-1] == "conv"
        assert result.class_index.tolist() == [chosen] * 3


@pytest.fixture(scope="module")
def cut_network():
    """(model, bottom, top): a nonlinear head after the layer "target", whole and cut there."""
    keras.utils.set_random_seed(3)
    normal = keras.initializers.RandomNormal(stddev=0.3, seed=5)
    target = L.Conv2D(4, 3, strides=2, activation="tanh", name="target")
    tail = [
        L.Conv2D(3, 2, activation="tanh", kernel_initializer=normal, name="after"),
        L.Flatten(),
        L.Dense(5, activation="tanh"),
        L.Dense(3),
    ]
    bottom = keras.Sequential([keras.Input((12, 12, 3)), target])
    top = keras.Sequential([keras.Input((5, 5, 4)), *tail])
    whole = keras.Sequential([keras.Input((12, 12, 3)), target, *tail])
    return whole, bottom, top


def test_channel_weights_are_the_central_differences_of_the_score(cut_network, images):
    whole, bottom, top = cut_network
    features = bottom(images).numpy()
    step = 0.03

    def weight(channel):
        moved = np.eye(4)[channel] * step
        rise = top((features + moved).astype("f")) - top((features - moved).astype("f"))
        return rise[:, 2].numpy() / (2 * step * 25)

    weights = np.stack([weight(channel) for channel in range(4)], axis=1)
    expected = np.maximum(np.einsum("nhwc,nc->nhw", features, weights), 0)
    result = grad_cam(whole, images, class_index=2, layer_name="target")
    assert expected.max() > 0
    np.testing.assert_allclose(result.maps, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("method", METHODS)
def test_methods_follow_their_formulas(cut_network, images, method):
    whole, bottom, top = cut_network
    features = bottom(images)
    with tf.GradientTape() as tape:
        tape.watch(features)
        score = top(features)[:, 1]
    slope, features = tape.gradient(score, features).numpy(), features.numpy()
    alpha = slope**2 / (2 * slope**2 + features.sum((1, 2), keepdims=True) * slope**3)
    evidence = {
        "grad-cam++": (alpha * np.maximum(slope, 0)).sum((1, 2), keepdims=True) * features,
        "grad-cam": slope.mean((1, 2), keepdims=True) * features,
        "hires-cam": slope * features,
        "layer-cam": np.maximum(slope, 0) * features,
    }[method]
    expected = np.maximum(evidence.sum(-1), 0)
    result = grad_cam(whole, images, class_index=1, layer_name="target", method=method)
    assert expected.any() and result.method == method
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-4 * expected.max())
    np.testing.assert_allclose(result.scores, score, rtol=1e-5)


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
def test_signed_map_adds_up_to_the_logit(pooled_network, images, method):
    model, _, dense = pooled_network("nested", "one logit")
    result = grad_cam(model, images, class_index=1, signed=True, method=method)
    assert (result.maps > 0).any() and (result.maps < 0).any()
    bias = dense.get_weights()[1][0]
    np.testing.assert_allclose(result.maps.sum((1, 2)) + bias, result.scores, rtol=1e-4)


@pytest.mark.parametrize("method", SIGNED_METHODS)
def test_signed_map_of_one_class_is_the_negative_of_the_other(method):
    keras.utils.set_random_seed(1)
    convolutions = L.Conv2D(5, 3), L.Conv2D(7, 2, 2, activation="relu")
    end = L.GlobalAveragePooling2D(), L.Dense(1, "sigmoid")
    model = keras.Sequential([keras.Input((12, 12, 3)), *convolutions, *end])
    images = np.random.default_rng(2).uniform(0, 1, (4, 12, 12, 3))
    cat, dog = (grad_cam(model, images, class_index=c, signed=True, method=method) for c in (0, 1))
    np.testing.assert_allclose(cat.maps, -dog.maps, rtol=1e-5, atol=1e-6 * np.abs(dog.maps).max())
    for sign, result in ((-1, 0), (1, 1)):
        only = grad_cam(model, images, class_index=result, method=method).maps
        np.testing.assert_allclose(only, np.maximum(sign * dog.maps, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "name"), [(list, "second"), (list, 1), (dict, "second")])
def test_one_of_two_outputs_is_explained(images, kind, name):
    inputs, convolution = keras.Input((12, 12, 3)), L.Conv2D(4, 3, activation="relu")
    pooled = L.GlobalAveragePooling2D()(convolution(inputs))
    heads = {"first": L.Dense(1, name="first"), "second": L.Dense(3, "softmax", name="second")}
    outputs = {key: head(pooled) for key, head in heads.items()}
    model = keras.Model(inputs, outputs if kind is dict else list(outputs.values()))
    for head, chosen, output in (("second", 2, name), ("first", 1, "first")):
        maps, logits = class_activation_map(convolution, heads[head], images, chosen)
        result = grad_cam(model, images, class_index=chosen, output_name=output)
        np.testing.assert_allclose(result.maps, maps, rtol=1e-4, atol=1e-4 * maps.max())
        np.testing.assert_allclose(result.scores, logits, rtol=1e-4, atol=1e-5)
    found = class_probabilities(model, images, output_name=name)
    np.testing.assert_allclose(found, tf.nest.flatten(model(images))[1], rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_predicted_class_is_explained_unless_one_is_chosen(pooled_network, images, head):
    model = pooled_network(head=head)[0]
    output = model.predict(images, verbose=0)
    if output.shape[1] == 1:
        predicted = (output[:, 0] > (0.5 if head == "sigmoid" else 0)).astype(int)
    else:
        predicted = output.argmax(1)
    result = grad_cam(model, images)
    np.testing.assert_array_equal(result.class_index, predicted)
    chosen = grad_cam(model, images, class_index=predicted)
    np.testing.assert_array_equal(result.maps, chosen.maps)


def test_one_class_for_each_of_more_images_than_fit_one_batch(pooled_network, images):
    model = pooled_network()[0]
    many = np.random.default_rng(1).permutation(np.repeat(images, 15, axis=0))
    index = np.arange(45) % 4
    whole = grad_cam(model, many, class_index=index)
    assert len(whole.maps) == len(whole.scores) == len(whole.verdicts) == 45
    np.testing.assert_array_equal(whole.class_index, index)
    for row in (0, 1, 2, 40):
        single = grad_cam(model, many[row], class_index=index[row])
        assert single.maps.shape == (1, 5, 5)
        np.testing.assert_allclose(whole.maps[row], single.maps[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(whole.scores[row], single.scores[0], rtol=1e-5)


def test_no_images_give_empty_results(pooled_network, images):
    result = grad_cam(pooled_network()[0], images[:0])
    assert result.maps.shape == (0, 5, 5) and result.verdicts == ()


@pytest.mark.parametrize(
    "class_index",
    [4, -1, 2**32, 1.0, "dog", True, [0, 1], [0, 1, 4], [0, 1, -1], [[0, 1, 2]], [[0], 1, 2]],
)
def test_wrong_class_index_is_an_error(pooled_network, images, class_index):
    with pytest.raises(ValueError, match="`class_index`"):
        grad_cam(pooled_network()[0], images, class_index=class_index)
    with pytest.raises(ValueError, match=r"`class_index` \(=2\) must be in \[0, 2\)"):
        grad_cam(pooled_network(head="sigmoid")[0], images, class_index=2)


def vgg_like():
    features = L.Conv2D(4, 3, activation="relu"), L.Conv2D(4, 3), L.ReLU(name="expected")
    end = L.MaxPooling2D(), L.Dropout(0.5), L.Flatten(), L.Dense(2)
    return keras.Sequential([keras.Input((12, 12, 3)), *features, *end])


def residual(join):
    inputs = keras.Input((12, 12, 3))
    first = L.Conv2D(4, 3, padding="same")(inputs)
    second = L.Conv2D(4, 3, padding="same")(first)
    joined = join(first, second)
    return keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling2D()(joined)))


def residual_with_layers():
    return residual(lambda first, second: L.ReLU(name="expected")(L.Add()([first, second])))


def residual_with_operations():
    return residual(lambda first, second: L.Add(name="expected")([first, second * 2]))


def squeezed_to_one_pixel():
    last = L.Conv2D(4, 3, activation="relu", name="expected")
    squeezed = L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(8, 1, activation="relu")
    end = L.Conv2D(2, 1), L.Flatten(), L.Softmax()
    return keras.Sequential([keras.Input((12, 12, 3)), last, *squeezed, *end])


def with_a_blind_branch():
    inputs = keras.Input((12, 12, 3))
    used = L.Conv2D(4, 3, name="expected")(inputs)
    blind = L.Conv2D(4, 3)(keras.ops.stop_gradient(used))
    pool = L.GlobalAveragePooling2D()
    outputs = L.Dense(2)(pool(used)) + keras.ops.stop_gradient(L.Dense(2)(pool(blind)))
    return keras.Model(inputs, outputs)


class OneReLUForAll(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = L.Conv2D(4, 3), L.Conv2D(4, 3)
        self.relu = L.ReLU(name="expected")
        self.pool, self.head = L.GlobalAveragePooling2D(), L.Dense(2)

    def call(self, images):
        features = self.relu(self.second(self.relu(self.first(images))))
        return self.head(self.pool(features))


def one_relu_for_all():
    model = OneReLUForAll()
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model


DEFAULTS = [vgg_like, residual_with_layers, residual_with_operations, squeezed_to_one_pixel]


@pytest.mark.parametrize("build", [*DEFAULTS, with_a_blind_branch, one_relu_for_all])
def test_default_layer_is_the_last_feature_map_before_pooling(images, build):
    model = build()
    result = grad_cam(model, images)
    assert result.layer_name == "expected"
    assert min(result.maps.shape[1:]) > 1


@pytest.mark.parametrize("normalized", [True, False])
def test_default_layer_of_the_classifier_is_its_last_addition(normalized):
    model = build_model(width=2, batch_normalization=normalized)
    result = grad_cam(model, np.full((1, 32, 48, 3), 9.0))
    assert result.layer_name == "block4_add3" and result.maps.shape == (1, 2, 3)


def test_score_that_ignores_the_layer_has_zero_gradient(pooled_network, images):
    model, _, dense = pooled_network()
    kernel, bias = dense.get_weights()
    dense.set_weights([kernel * 0, bias])
    result = grad_cam(model, images)
    assert result.verdicts == ("zero gradient",) * 3
    assert not result.maps.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "weight"), [(1e-4, 1.0), (1, 1.0), (1, 1e4)])
def test_small_and_large_gradients_in_float16_are_those_of_float32(method, size, weight):
    """Of a mean over 96x96 places; of a weight of 1e4, which float16 holds, but hardly more."""
    images = np.random.default_rng(0).uniform(0, 1, (2, 96, 96, 3)).astype(np.float32)
    results = []
    for policy in ("mixed_float16", "float32"):
        layer = functools.partial(L.Conv2D, padding="same", dtype=policy)
        inputs = keras.Input((96, 96, 3))
        features = layer(8, 3, activation="relu", kernel_initializer=_seeded(0))(inputs)
        features = layer(1, 1, kernel_initializer=_seeded(1, size), name="conv")(features)
        pooled = L.GlobalAveragePooling2D(dtype=policy)(features)
        constant = keras.initializers.Constant(weight)
        head = L.Dense(1, kernel_initializer=constant, dtype="float32")(pooled)
        model = keras.Model(inputs, head)
        first = model.layers[1].name
        results.append(grad_cam(model, images, class_index=1, layer_name=first, method=method))
    found, expected = results
    assert found.verdicts == expected.verdicts
    largest = expected.maps.max()
    assert largest > 0
    np.testing.assert_allclose(found.maps / largest, expected.maps / largest, atol=0.02)


def _seeded(seed, size=0.3):
    return keras.initializers.RandomUniform(0, size, seed=seed)


def test_features_that_are_only_evidence_against_the_class(pooled_network, images):
    model, _, dense = pooled_network()
    kernel, bias = dense.get_weights()
    kernel[:, 2], kernel[:, 3] = -1, 1
    dense.set_weights([kernel, bias])
    result = grad_cam(model, images, class_index=[3, 2, 2])
    assert result.verdicts == ("ok", "no positive evidence", "no positive evidence")
    assert result.maps[0].any() and not result.maps[1:].any()
    result = grad_cam(model, images, class_index=2, signed=True)
    assert set(result.verdicts) == {"ok"} and result.maps.max() <= 0 > result.maps.min()


@pytest.mark.parametrize("method", METHODS)
def test_nan_in_the_gradient_alone_is_an_error(images, method):
    inputs = keras.Input((12, 12, 3))
    silent = L.Conv2D(4, 3, activation="relu", bias_initializer=_minus_100)(inputs)
    length = keras.ops.sqrt(keras.ops.sum(silent**2, (1, 2)))  # no slope at 0
    model = keras.Model(inputs, L.Dense(2)(length))
    assert np.isfinite(model.predict(images, verbose=0)).all()
    with pytest.raises(ValueError, match="NaN"):
        grad_cam(model, images, method=method)


def _minus_100(shape, dtype=None):
    return keras.ops.full(shape, -100.0, dtype)


@pytest.mark.parametrize("name", ["pooling", "head"])
def test_layer_without_feature_maps_is_an_error(pooled_network, images, name):
    with pytest.raises(ValueError, match=f"`layer_name` .='{name}'. outputs shape"):
        grad_cam(pooled_network()[0], images, layer_name=name)


def test_layer_that_the_output_does_not_depend_on_is_an_error(images):
    inputs = keras.Input((12, 12, 3))
    used = L.Conv2D(4, 3, name="used")(inputs)
    side = L.Conv2D(4, 3, name="side")(keras.ops.stop_gradient(used))
    outputs = L.Dense(2)(L.GlobalAveragePooling2D()(used))
    outputs += keras.ops.stop_gradient(keras.ops.mean(side))
    with pytest.raises(ValueError, match="'side'. has no influence on the model's output"):
        grad_cam(keras.Model(inputs, outputs), images, layer_name="side")


class Residual(L.Layer):
    """A block that computes with the outputs of its own layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = L.Conv2D(6, 3, padding="same", name="inner")

    def call(self, features):
        return keras.ops.relu(features + self.conv(features))


def test_a_block_that_computes_itself_is_the_last_feature_map(pooled_network, images):
    _, convolution, dense = pooled_network()
    block, inputs = Residual(name="block"), keras.Input((12, 12, 3))
    pooled = L.GlobalAveragePooling2D()(block(convolution(inputs)))
    model = keras.Model(inputs, dense(pooled))
    result = grad_cam(model, images, class_index=1, method="hires-cam", signed=True)
    assert result.layer_name == "block"
    maps, logits = block(convolution(images)).numpy(), model.predict(images, verbose=0)[:, 1]
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(result.maps, maps @ kernel[:, 1] / 25, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.maps.sum((1, 2)) + bias[1], logits, rtol=1e-4)
    found = extract_activations(model, images)
    assert list(found) == ["conv", "block/inner", "block"]
    np.testing.assert_allclose(found["block"], maps, rtol=1e-5, atol=1e-6)


def test_a_nested_model_is_no_feature_map_beside_its_last_layer(pooled_network, images):
    model, _, _ = pooled_network("nested twice")
    assert [path.split("/")[-1] for path in extract_activations(model, images)] == ["conv"]


def test_of_an_attention_layer_only_the_output_is_a_feature_map(images):
    inputs = keras.Input((12, 12, 3))
    features = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    tokens = L.Reshape((-1, 4))(features)
    tokens = L.MultiHeadAttention(2, 4, dropout=0.1, name="mha")(tokens, tokens)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(tokens)))
    result = grad_cam(model, images)
    assert result.layer_name == "mha" and result.maps.shape == (3, 10, 10)
    assert [y.shape for y in extract_activations(model, images).values()] == 3 * [(3, 10, 10, 4)]


def test_pixels_that_are_only_rescaled_are_no_feature_map(images):
    steps = [L.Rescaling(2.0), L.Flatten(), L.Dense(3)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *steps])
    with pytest.raises(ValueError, match="needs convolutions"):
        grad_cam(model, images)


def test_wrong_method_is_an_error(pooled_network, images):
    with pytest.raises(ValueError, match="`method` .='cam'.*'grad-cam'"):
        grad_cam(pooled_network()[0], images, method="cam")
    for method in ("layer-cam", "grad-cam++"):
        with pytest.raises(ValueError, match=f"`signed` .=True. needs .*'{method}'"):
            grad_cam(pooled_network()[0], images, method=method, signed=True)


def test_a_layer_of_1x1_gives_its_evidence_and_a_warning(images):
    model = squeezed_to_one_pixel()
    name = model.layers[2].name  # after the pooling
    with pytest.warns(UserWarning, match=f"`layer_name` .='{name}'. outputs .* 1x1"):
        result = grad_cam(model, images, layer_name=name)
    assert result.maps.shape == (3, 1, 1)


def test_a_layer_in_parallel_branches_is_a_warning(images):
    """Its last output holds the evidence of one branch only."""
    inputs, convolution = keras.Input((12, 12, 3)), L.Conv2D(4, 3, name="twice")
    pool, head = L.GlobalAveragePooling2D(), L.Dense(2)
    model = keras.Model(inputs, head(pool(convolution(inputs)) + pool(convolution(-inputs))))
    with pytest.warns(UserWarning, match="'twice' is used in parallel 2 times"):
        result = grad_cam(model, images)
    assert result.layer_name == "twice"


def test_a_result_is_one_line_a_table_and_a_figure(color_model, spots):
    images, labels = spots
    result = grad_cam(color_model, images, class_index=labels, class_names=("blue", "<red>"))
    assert "\n" not in repr(result) and len(repr(result)) < 300
    assert (result == grad_cam(color_model, images)) is False
    assert result.to_frame()["class"].tolist() == ["blue", "<red>"] * 3
    page = result._repr_html_()
    assert 'src="data:image/png' in page and "<red>" not in page
    result.maps[:] = 0  # writable


class ResizedToItself(L.Layer):
    """A layer whose feature maps have a size that is unknown while they are traced."""

    def call(self, features):
        return tf.image.resize(features, tf.shape(features)[1:3])


def test_a_feature_map_of_unknown_size_is_explained_too(pooled_network, images):
    _, convolution, dense = pooled_network()
    inputs = keras.Input((12, 12, 3))
    features = ResizedToItself(name="resized")(convolution(inputs))
    pooled = L.GlobalAveragePooling2D()(features)
    result = grad_cam(keras.Model(inputs, dense(pooled)), images, class_index=1)
    maps, _ = class_activation_map(convolution, dense, images, 1)
    assert result.layer_name == "resized"
    np.testing.assert_allclose(result.maps, maps, rtol=1e-4, atol=1e-4 * maps.max())
