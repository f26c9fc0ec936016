"""What holds for every model and method: names, errors, traces, and a model that is left alone."""

import concurrent.futures
import gc
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam

L, ops = keras.layers, keras.ops


def ascend(model, images):
    """The images of two filters, in the value range of these images."""
    value_range = 0, np.ceil(images.max())
    return ascend_filters(model, "conv", [0, 1], steps=3, value_range=value_range).images


METHODS = {
    "class_probabilities": layers.class_probabilities,
    "extract_activations": lambda model, images: extract_activations(model, images)["conv"],
    "grad_cam": lambda model, images: grad_cam(model, images, class_index=1).maps,
    "ascend_filters": ascend,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
FORWARD = ("class_probabilities", "extract_activations", "grad_cam")  # take images


def classifier(*before, inputs=((12, 12, 3),), outputs=1, dtype=None):
    """A functional model with these layers between the images and its convolution."""
    inputs = [keras.Input(shape, dtype=dtype) for shape in inputs]
    features = L.Add()(inputs) if len(inputs) > 1 else inputs[0]
    for layer in (*before, L.Conv2D(2, 3, name="conv"), L.GlobalAveragePooling2D()):
        features = layer(features)
    outputs = [L.Dense(2)(features) for _ in range(outputs)]
    return keras.Model(*(some if len(some) > 1 else some[0] for some in (inputs, outputs)))


class Subclassed(keras.Model):
    """A convolution and a dense layer; some tests replace its `call`."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = L.Conv2D(2, 3, name="conv"), L.Dense(2)
        self.conv.build((None, 12, 12, 3))
        self.head.build((None, 2))
        self.built = True

    def classify(self, features):
        return self.head(ops.mean(features, (1, 2)))

    def call(self, images):
        return self.classify(self.conv(images))


class Scaled(L.Layer):
    """A composite layer: what another layer outputs, times a weight of its own."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.inner(x) * self.scale


class Probe(L.Layer):
    """Passes on what it gets; counts its calls in Python, and fails when told to."""

    def __init__(self):
        super().__init__()
        self.calls, self.errors = [], []  # a number would be one of its settings

    def call(self, features):
        self.calls.append(1)
        for error in self.errors:
            raise error("planted")
        return features


@pytest.fixture
def probed_network():
    """(model, probe): a probe between a convolution of 64 filters and a dense layer."""
    probe, inputs = Probe(), keras.Input((12, 12, 3))
    options = {"activation": "relu", "activity_regularizer": "l2", "name": "conv"}
    features = probe(L.Conv2D(64, 3, **options)(inputs))
    outputs = L.Dense(3, name="head")(L.GlobalAveragePooling2D()(features))
    return keras.Model(inputs, outputs), probe


# Names


def test_names_in_the_order_of_the_model(shared_network):
    nested = ["backbone", "backbone/inner", "backbone/inner/conv", "pooling", "head"]
    assert list(layers.named_layers(shared_network("nested twice"))) == nested
    assert list(layers.leaves(layers.named_layers(shared_network("nested twice")))) == nested[2:]
    assert list(layers.named_layers(shared_network("sequential"))) == ["conv", "pooling", "head"]


def test_names_of_subclassed_models_and_composite_layers(images):
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.twins = [Scaled(L.Rescaling(x, name="in"), name="block") for x in (2.0, 3.0)]

        def call(self, images):
            return self.twins[1](self.twins[0](images))

    model, in_a_circle = Twins(), Twins()
    in_a_circle.twins[0].parent = in_a_circle
    model(images)
    model.twins[0].scale.assign(5)
    found = extract_activations(model, images)
    paths = ["block", "block/in", "block_1", "block_1/in"]
    assert paths == list(layers.named_layers(model)) == list(layers.named_layers(in_a_circle))
    for path, factor in zip(paths, (10, 2, 30, 30), strict=True):
        np.testing.assert_allclose(found[path], factor * images, rtol=1e-6)


def test_convolution_layers_go_by_what_they_are():
    kind = type("Smart", (L.Conv2D,), {})  # its name does not hold "Conv"
    found = kind(2, 3, name="a"), L.MaxPooling2D(), L.DepthwiseConv2D(3, name="c"), L.ReLU()
    model = keras.Sequential([keras.Input((12, 12, 3)), *found, L.GlobalMaxPooling2D()])
    assert layers.convolution_layers(model) == ["a", "c"]


def test_a_layer_is_found_by_path_or_bare_name(shared_network):
    model = shared_network("nested twice")
    layer = layers.named_layers(model)["backbone/inner/conv"]
    for name in ("backbone/inner/conv", "inner/conv", "conv"):
        assert layers.find_layer(model, name) == ("backbone/inner/conv", layer)
    with pytest.raises(ValueError, match=r"`layer_name` .='pulling'. is not a .*'pooling'"):
        layers.find_layer(model, "pulling")
    inputs = keras.Input((12, 12, 3))
    branches = [keras.Sequential([L.Conv2D(2, 3, name="conv")], name=name) for name in ("a", "b")]
    two = keras.Model(inputs, L.Add()([branch(inputs) for branch in branches]))
    with pytest.raises(ValueError, match="ambiguous: choose one of .'a/conv', 'b/conv'."):
        layers.find_layer(two, "conv")
    for names in (3, [3], [None], "", ["conv", ["head"]], b"conv"):
        with pytest.raises(ValueError, match="`layer_names` .*is not a layer of .*nearest"):
            layers.find_layers(model, names)


# The model is left alone


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


def test_model_is_left_as_it_was_and_can_still_be_trained(probed_network, images):
    model, _ = probed_network
    convolution = model.get_layer("conv")
    convolution.trainable, original = False, convolution.call
    convolution.call = lambda features: 2 * original(features)  # as a person may do
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    for method in METHODS.values():
        method(model, images)
        assert state_of(model) == before
    found = extract_activations(model, images, "conv")["conv"]
    np.testing.assert_allclose(found, 2 * original(images), rtol=1e-5)
    for name in ("nowhere", "head"):
        with pytest.raises(ValueError, match="layer_name"):
            grad_cam(model, images, layer_name=name)
        assert state_of(model) == before
    model.fit(images, np.ones((3, 3)), verbose=0)
    model(images)
    assert np.isfinite(float(model.losses[0]))  # of the activity regularizer
    after = state_of(model)
    assert after[3][:2] == before[3][:2] and after[3][2:] != before[3][2:]


@every_method
def test_model_is_left_as_it_was_after_an_error_inside_it(probed_network, images, method):
    model, probe = probed_network
    for error in (RuntimeError, KeyboardInterrupt):
        probe.errors = [error]
        before = state_of(model)
        with pytest.raises(error, match="planted"):
            method(model, images)
        assert state_of(model) == before
    probe.errors = []
    assert np.isfinite(method(model, images)).all()


@every_method
def test_augmentation_and_dropout_in_the_model_change_nothing(pooled_network, images, method):
    model, *_ = pooled_network()
    convolution, *end = model.layers[1:]
    start = [L.RandomFlip(), L.RandomRotation(0.5), L.RandomContrast(0.5), L.GaussianNoise(1.0)]
    between = [L.SpatialDropout2D(0.9), L.Dropout(0.9)]
    other = keras.Sequential([keras.Input((12, 12, 3)), *start, convolution, *between, *end])
    before = state_of(other)
    np.testing.assert_allclose(method(other, images), method(model, images), rtol=1e-5, atol=1e-6)
    assert state_of(other) == before


@pytest.mark.parametrize("kind", ["nested", "subclassed"])
def test_model_can_be_forgotten_after_all_methods(pooled_network, images, kind):
    model = pooled_network(kind)[0]
    for method in (layers.class_probabilities, extract_activations, grad_cam, ascend):
        method(model, images)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


# Traces


def test_each_method_is_traced_once_for_all_images_filters_and_classes(probed_network, images):
    model, probe = probed_network
    for method in METHODS.values():
        before = len(probe.calls)
        method(model, images)
        method(model, np.concatenate([images, images]))
        assert len(probe.calls) == before + 1
    ascend_filters(model, "conv", steps=2, batch_size=24, value_range=(0, 1), seed=7)
    for class_index in (None, 0, 2, [0, 1, 2]):
        grad_cam(model, images, class_index=class_index)
    assert len(probe.calls) == before + 1


def test_a_bounded_number_of_traces_is_kept(monkeypatch):
    run = sys.modules["cnnviz.layers.run"]  # the package's `run` is the function
    monkeypatch.setattr(run, "MOST_TRACES", 3)
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(1, 1, name="conv")])
    for side in (1, 2, 3, 4, 5, 1):
        found = extract_activations(model, np.ones((1, side, side, 3)))["conv"]
        np.testing.assert_allclose(found, model(np.ones((1, side, side, 3))), rtol=1e-5)
    assert len(run._traces[model]) == 3


class Editable(Subclassed):
    """A network of all that a person may change after the first call."""

    def __init__(self):
        super().__init__()
        self.norm, self.leaky, self.pad = L.Normalization(), L.LeakyReLU(0.1), L.ZeroPadding2D(1)
        self.norm.adapt(np.random.default_rng(1).normal(size=(4, 12, 12, 3)))
        self.factor = 2.0

    def call(self, images):
        features = self.leaky(self.factor * self.conv(self.norm(images)))
        return self.classify(self.pad(features))


def _add_lora(model):
    model.head.enable_lora(1)
    model.head.lora_kernel_b.assign([[3.0, -3.0]])


CHANGES = {
    "weights": lambda model: model.conv.set_weights([2 * w for w in model.conv.get_weights()]),
    "activation": lambda model: setattr(model.conv, "activation", keras.activations.softplus),
    "number of a layer": lambda model: setattr(model.leaky, "negative_slope", 0.9),
    "number of the model": lambda model: setattr(model, "factor", -3.0),
    "tuple of a layer": lambda model: setattr(model.pad, "padding", ((0, 0), (2, 2))),
    "another layer": lambda model: setattr(model, "leaky", L.ELU(name="leaky")),
    "statistics": lambda model: model.norm.adapt(np.linspace(0, 9, 432).reshape(1, 12, 12, 3)),
    "LoRA": _add_lora,
    "quantized": lambda model: model.head.quantize("int8"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_in_the_model_counts_at_once(images, change):
    model = Editable()
    before = layers.class_probabilities(model, images)
    change(model)
    after = layers.class_probabilities(model, images)
    np.testing.assert_allclose(after, ops.softmax(model(images)), rtol=1e-4, atol=1e-6)
    assert np.abs(after - before).max() > 1e-5


def test_several_threads_on_one_model_find_what_one_does(pooled_network, shared_network, images):
    model, convolution, _ = pooled_network()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        twice = [*METHODS.values(), *METHODS.values()]
        found = [(method, pool.submit(method, model, images)) for method in twice]
    for method, result in found:
        np.testing.assert_allclose(result.result(), method(shared_network(), images), rtol=1e-5)
    assert "call" not in vars(convolution)


# Data in batches


@pytest.fixture(scope="module")
def many():
    """Two batches and a part of one, with their numbers as labels."""
    n_images = 2 * layers.BATCH_SIZE + 6
    random = np.random.default_rng(0)
    return random.uniform(0, 1, (n_images, 12, 12, 3)).astype(np.float32), np.arange(n_images)


class InPieces(keras.utils.PyDataset):
    def __init__(self, images, labels, kind):
        super().__init__()
        self.images, self.labels, self.kind = images, labels, kind

    def __len__(self):
        return 2

    def __getitem__(self, index):
        piece = slice(40 * index, 40 * index + 40)
        return self.kind([self.images[piece], self.labels[piece]])


def forms(images, labels):
    """The same data in every form that is taken."""
    weights, one_hot = np.ones(len(images)), np.eye(len(labels))[labels]
    return [
        (list(images), labels.tolist()),
        (images, one_hot, weights),
        tf.data.Dataset.from_tensor_slices((images, labels)).batch(50),
        tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(9),
        InPieces(images, labels[:, None], tuple),
        InPieces(images, labels, list),
    ]


def test_results_are_the_same_in_every_form_and_in_batches(shared_network, many):
    model, (images, labels) = shared_network(), many
    expected = ops.softmax(model(images))
    for data in (images, list(images), tuple(images), *forms(images, labels)):
        np.testing.assert_allclose(layers.class_probabilities(model, data), expected, rtol=1e-5)
    for data in forms(images, labels):
        parts = list(layers.batches(model, data, labels=True))
        assert max(len(part) for part, _ in parts) <= layers.BATCH_SIZE
        np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), images)
        np.testing.assert_array_equal(np.concatenate([given for _, given in parts]), labels)
    pair = layers.class_probabilities(model, (images[0], images[1]))  # two images, and no labels
    np.testing.assert_allclose(pair, expected[:2], rtol=1e-5)


def test_run_gives_each_batch_its_own_numbers_and_writable_arrays(shared_network, many):
    model, (images, labels) = shared_network(), many

    def compute(call, numbers):
        return {"sum": tf.reduce_sum(call.images, (1, 2, 3)), "number": numbers}, call.output.shape

    options = {"key": "a test", "record": layers.every_layer}
    for n in (len(images), 3, 0):
        found, shape = layers.run(model, images[:n], compute, per_image=[labels[:n]], **options)
        np.testing.assert_array_equal(found["number"], labels[:n])
        np.testing.assert_allclose(found["sum"], images[:n].sum((1, 2, 3)), rtol=1e-5)
        assert shape == (None, 4)
        found["sum"] += 1  # is nobody else's


def test_each_warning_is_given_once_in_a_call_of_many_batches(many):
    inner = classifier()
    model = keras.Model(inner.inputs, 1 - ops.sigmoid(inner.outputs[0]))
    for method in (layers.class_probabilities, grad_cam):
        with pytest.warns(UserWarning) as told:
            method(model, 255 * many[0])
        assert sorted(str(one.message)[:8] for one in told) == ["`images`", "the mode"]
        assert {one.filename for one in told} == {__file__}


dataset_of, zeros = tf.data.Dataset.from_tensors, np.zeros
WRONG_DATA = [
    (lambda images: (image for image in images), "a generator. can be read only once"),
    (lambda images: "cat.jpg", "='cat.jpg'. must be images; `load_image"),
    (lambda images: [Path("cat.jpg")], "must be images; `load_image"),
    (lambda images: dataset_of(images).repeat(), "which never ends. must be .*images.take"),
    (lambda images: dataset_of({"a": images, "b": images}), "a dict of dtype object"),
    (lambda images: keras.utils.PyDataset(), "a PyDataset without a length. must have `__len__`"),
    (lambda images: dataset_of(images).take(0), "without a single image"),
    (lambda images: (images, [0, 1]), "must have one label for each image"),
    (lambda images: ([images[0], images[1][1:]], [0, 1]), "must all have one size"),
    (lambda images: [images[0], images[1][1:]], "must all have one size"),
    (lambda images: None, "a NoneType of dtype object. must be an array of numbers"),
    (lambda images: images.astype(complex), "a ndarray of dtype complex128"),
    (lambda images: images[0, ..., 0], r"`images` .of shape \(12, 12\). must be \(N, H, W, C\)"),
    (lambda images: images[..., :1], r"must be \(N, 12, 12, 3\) for model"),
    (lambda images: zeros((1, 3, 12, 12)), r"\(1, 3, 12, 12\).*must be \(N, 12, 12, 3\)"),
    (lambda images: zeros((1, 0, 12, 3)), r"`images` .of shape \(1, 0, 12, 3\). must have pixels"),
    (lambda images: np.float64(images) + 1e300, "`images` holds NaN or infinity"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_DATA)
def test_wrong_data_is_an_error_that_tells_why(shared_network, images, make, message):
    for method in (layers.class_probabilities, grad_cam):
        with pytest.raises(ValueError, match=message):
            method(shared_network(), make(images))


def test_labels_are_one_class_for_each_image(shared_network, images):
    np.testing.assert_array_equal(layers.class_indices(np.eye(3), 3), [0, 1, 2])
    for labels in ([0.5, 1, 2], [0, 1], np.ones((3, 2)), [[0], [1, 2]], ["cat"] * 3, [np.nan] * 3):
        with pytest.raises(ValueError, match="`labels` .*must have one class index for each of"):
            layers.class_indices(labels, 3)
    with pytest.raises(ValueError, match=r"`data` .with labels 0..2. must have labels in \[0, 2"):
        layers.check_labels(np.arange(3), 2)
    with pytest.raises(ValueError, match="of images without labels"):
        list(layers.batches(shared_network(), images, labels=True))


# Images and models


def test_images_of_every_kind_of_number_become_float32(shared_network, images):
    model = shared_network()
    whole = np.random.default_rng(0).integers(0, 2, (2, 12, 12, 3))
    for dtype in ("uint8", "int64", "float64", "float16", "bool"):
        found = layers.check_images(model, whole.astype(dtype))
        np.testing.assert_array_equal(found, whole.astype(np.float32), strict=True)
    for same in (ops.convert_to_tensor(images), list(images), images.tolist()):
        np.testing.assert_array_equal(layers.check_images(model, same), images)
    bfloat16 = layers.check_images(model, ops.cast(images, "bfloat16"))
    np.testing.assert_allclose(bfloat16, images, atol=0.01)
    np.testing.assert_array_equal(layers.check_images(model, images[0]), images[:1])


def test_a_stack_of_gray_images_is_taken_for_what_it_is():
    model = classifier(inputs=[(12, 10, 1)])
    images = np.random.default_rng(0).uniform(size=(4, 12, 10)).astype(np.float32)
    np.testing.assert_array_equal(layers.check_images(model, images), images[..., None])
    assert layers.check_images(model, images[0, :, :, None]).shape == (1, 12, 10, 1)
    with pytest.raises(ValueError, match=r"of shape \(4, 9, 9\)\) must be \(N, 12, 10, 1\)"):
        layers.check_images(model, np.zeros((4, 9, 9)))


def test_a_subclassed_model_is_given_images_as_it_was_first_called_with():
    model = type("Gray", (keras.Model,), {"call": lambda self, images: 2 * images})()
    model(np.zeros((1, 20, 16, 1), np.float32))
    assert layers.image_shape(model) == (20, 16, 1)
    assert layers.image_shape(model, 28) == (28, 28, 1)


def test_images_that_a_model_does_not_take_are_an_error_in_one_line(images):
    def call(self, inputs):
        return Subclassed.call(self, inputs["image"])

    named = type("Named", (Subclassed,), {"call": call})()
    small = classifier(inputs=[(None, None, 3)])
    for model, given in ((named, images), (Subclassed(), images[..., :1]), (small, images[:, :2])):
        for name in FORWARD:
            with pytest.raises(ValueError, match=r"cannot be called on `images` of sh") as error:
                METHODS[name](model, given)
            assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
    assert np.isfinite(METHODS[name](small, images)).all()
    with pytest.raises(ValueError, match=r"`images` .* must be \(N, H, W, 3\) for model"):
        layers.check_images(small, images[..., :2])


def test_a_model_that_takes_integers():
    model = classifier(L.Rescaling(1 / 255), dtype="uint8")
    images = np.random.default_rng(0).uniform(0, 0.99, (2, 12, 12, 3))
    with pytest.raises(ValueError, match="takes images as integers, which have no gradient"):
        ascend(model, images)
    with pytest.warns(UserWarning, match="all the same to model .* integers: in 0..255"):
        layers.class_probabilities(model, images)
    found = layers.class_probabilities(model, 255 * images)
    np.testing.assert_allclose(found, ops.softmax(model(np.uint8(255 * images))), rtol=1e-5)


WRONG_MODELS = [
    (lambda: "model.keras", "`model` .of type str. must be a keras.Model"),
    (lambda: L.Conv2D(2, 3), "of type Conv2D"),
    (lambda: keras.Sequential([L.Conv2D(2, 3)]), "is not built; call it once on an image"),
    (lambda: classifier(inputs=2 * [(12, 12, 3)]), "dict of the 2 inputs|depends on several input"),
    (lambda: keras.Sequential([keras.Input((5,)), L.Dense(2)]), "must have an input of images"),
]


@pytest.mark.parametrize(("build", "message"), WRONG_MODELS)
def test_wrong_model_is_an_error_of_every_method(images, build, message):
    for method in METHODS.values():
        with pytest.raises(ValueError, match=message):
            method(build(), images)


def test_layers_that_cannot_be_recorded_are_told_of(images):
    def choose(self, images):
        chosen = [lambda: self.conv(images), lambda: self.conv(-images)]
        return self.classify(ops.cond(ops.sum(images) > 0, *chosen))

    def decide(self, images):
        features = self.conv(images)
        return self.classify(features if tf.reduce_sum(features) > 0 else -features)

    for call in (tf.function(Subclassed.call), choose, decide):
        for method in (extract_activations, grad_cam):
            model = type("Hiding", (Subclassed,), {"call": call})()
            with pytest.raises(ValueError, match="where they cannot be recorded: in a tf.function"):
                method(model, images)


# Value range


def adapted(scale):
    normalization = L.Normalization()
    normalization.adapt(scale * np.random.default_rng(1).uniform(0, 1, (9, 12, 12, 3)))
    return normalization


RANGES = {  # what stands before the first kernel, the largest number that it takes, who is asked
    "nothing": (lambda: [], 1, METHODS),
    "Rescaling of 0..1": (lambda: [L.Rescaling(2.0, offset=-1)], 1, FORWARD[:1]),
    "Normalization of 0..1": (lambda: [adapted(1)], 1, FORWARD[:1]),
    "Rescaling of 0..255": (lambda: [L.Rescaling(1 / 127.5, offset=-1)], 255, METHODS),
    "Normalization of 0..255": (lambda: [adapted(255)], 255, FORWARD[:1]),
    "nested": (lambda: [L.RandomFlip(), keras.Sequential([L.Rescaling(1 / 255)])], 255, FORWARD),
}


@pytest.mark.parametrize(("before", "largest", "names"), RANGES.values(), ids=RANGES)
def test_images_in_another_range_are_flagged(images, before, largest, names):
    model, right, wrong = classifier(*before()), images, 255 * images
    words = "too large .*0..1 perhaps"
    if largest == 255:
        right, wrong, words = wrong, right, "too small .*takes images in 0..255"
    for name in names:
        argument = "value_range" if name == "ascend_filters" else "images"
        with pytest.warns(UserWarning, match=f"`{argument}` .*{words}"):
            METHODS[name](model, wrong)
        METHODS[name](model, right)  # a warning would be an error
    for color in (0, np.float32([0.1, 0.2, 0.3])):  # nothing can be said of one color
        layers.class_probabilities(model, 0 * images + color)
    if largest == 1:
        layers.class_probabilities(model, 2 * images - 1)
        layers.class_probabilities(model, (images - images.mean()) / images.std())


def test_images_whose_mean_is_subtracted_are_not_flagged(images):
    mean = np.array([103.9, 116.8, 123.7], np.float32)
    inside = L.Rescaling(1.0, offset=(-mean).tolist())
    layers.class_probabilities(classifier(), 255 * images - mean)
    layers.class_probabilities(classifier(inside), 255 * images)


# NaN


def with_nan(pooled_network, name):
    model = pooled_network()[0]
    kernel, bias = model.get_layer(name).get_weights()
    kernel.flat[1] = np.nan
    model.get_layer(name).set_weights([kernel, bias])
    return model


def test_nan_in_the_weights_is_told_with_the_name_of_the_layer(pooled_network, images):
    """The ReLU may hide it: oneDNN's convolution with ReLU turns NaN into 0."""
    model = with_nan(pooled_network, "conv")
    for name in ("class_probabilities", "grad_cam", "ascend_filters"):
        with pytest.raises(ValueError, match="NaN or infinity: the weights of its layer 'conv' ho"):
            METHODS[name](model, images)
    with pytest.warns(UserWarning, match="the weights of layer 'conv' hold NaN or infinity"):
        extract_activations(model, images, "pooling")
    model = with_nan(pooled_network, "head")  # activations show where NaN begins
    with pytest.warns(UserWarning) as told:
        found = extract_activations(model, images, ["conv", "head"])
    assert all("of layer 'head'" in str(one.message) for one in told) and len(told) == 2
    assert np.isfinite(found["conv"]).all() and np.isnan(found["head"]).any()


def test_infinity_that_comes_about_in_a_layer_is_flagged(pooled_network, images):
    model = pooled_network()[0]
    model.set_weights([1e30 * weight for weight in model.get_weights()])
    with pytest.warns(UserWarning, match="NaN or infinity comes out of layer 'head', the first"):
        found = extract_activations(model, images, ["conv", "head"])
    assert np.isfinite(found["conv"]).all() and not np.isfinite(found["head"]).all()
    with pytest.raises(ValueError, match="its weights are finite; extract_activations shows where"):
        layers.class_probabilities(model, images)


def test_nan_in_the_own_weight_of_a_composite_is_told_with_its_name(images):
    outer = Scaled(Scaled(L.Conv2D(2, 3, name="inner"), name="middle"), name="outer")
    model = classifier(outer)
    grad_cam(model, images)  # traced before there is a NaN
    own = {"outer/middle/inner": outer.inner.inner.bias, "outer/middle": outer.inner.scale}
    for path, weight in {**own, "outer": outer.scale}.items():  # the error names the first one
        weight.assign(weight * np.nan)
        assert layers.broken_layer(model) == path
        with pytest.raises(ValueError, match=f"the weights of its layer '{path}' hold it"):
            grad_cam(model, images)
        with pytest.warns(UserWarning, match=f"the weights of layer '{path}' hold NaN"):
            extract_activations(model, images[:0])


def test_weights_that_are_infinite_or_very_large(pooled_network, images):
    model, convolution, _ = pooled_network()
    kernel, bias = convolution.get_weights()
    for large in (3e38, 1e25):  # whose squares overflow
        convolution.set_weights([np.full_like(kernel, large), bias])
        assert layers.broken_layer(model) is None
    extract_activations(model, 1e-3 * images)  # a warning would be an error
    kernel[0, 0, 0, :2] = np.inf, -np.inf
    convolution.set_weights([kernel, bias])
    with pytest.raises(ValueError, match="weights of its layer 'conv'"):
        layers.class_probabilities(model, images)
