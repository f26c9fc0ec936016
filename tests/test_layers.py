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
METHODS = {
    "class_probabilities": lambda model, images: layers.class_probabilities(model, images),
    "extract_activations": lambda model, images: extract_activations(model, images)["conv"],
    "grad_cam": lambda model, images: grad_cam(model, images, class_index=1).maps,
    "ascend_filters": lambda model, images: (
        ascend_filters(model, "conv", [1, 4], steps=3, value_range=(0, 1)).images
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
FORWARD = ("class_probabilities", "extract_activations", "grad_cam")  # take images
right = pytest.mark.case("arrays and models", "right")
reported = pytest.mark.case("arrays and models", "reported")
flagged = pytest.mark.case("arrays and models", "flagged")


def sequential(*before, size=12, units=2):
    """A classifier with these layers between the images and its convolution."""
    after = [L.Conv2D(2, 3, name="conv"), L.GlobalAveragePooling2D()]
    head = L.Dense(units, name="head")
    return keras.Sequential([keras.Input((size, size, 3)), *before, *after, head])


class Subclassed(keras.Model):
    """A convolution and a dense layer; some tests replace `combine` or `call`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv, self.head = L.Conv2D(2, 3, name="conv"), L.Dense(2)
        self.conv.build((None, 12, 12, 3))
        self.head.build((None, 2))
        self.built = True

    def combine(self, features):
        return self.head(ops.mean(features, (1, 2)))

    def call(self, images):
        return self.combine(self.conv(images))


class Probe(L.Layer):
    """Passes on what it gets; counts its calls in Python, and fails when told to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls, self.error = [], None  # an int would be one of its settings

    def call(self, features):
        self.calls.append(1)
        if self.error:
            raise self.error[0]("planted")
        return features


@pytest.fixture
def probed_network():
    """(model, probe): a probe between a convolution of 64 filters and a dense layer."""
    probe = Probe(name="probe")
    inputs = keras.Input((12, 12, 3))
    features = L.Conv2D(64, 3, activation="relu", activity_regularizer="l2", name="conv")(inputs)
    pooled = L.GlobalAveragePooling2D()(probe(features))
    return keras.Model(inputs, L.Dense(3, name="head")(pooled)), probe


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("nested twice", "backbone/inner/"), ("sequential", ""), ("subclassed", "")],
)
def test_names_in_the_order_of_the_model(shared_network, kind, prefix):
    model = shared_network(kind)
    parents = ["backbone", "backbone/inner"] if prefix else []
    leaves = [f"{prefix}conv", "pooling", "head"]
    assert list(layers.named_layers(model)) == parents + leaves
    assert list(layers.leaf_layers(model)) == leaves


@right
def test_names_of_subclassed_models_and_composite_layers(images):
    class Block(L.Layer):
        def __init__(self, factor):
            super().__init__(name="block")
            self.scale = L.Rescaling(factor, name="scale")

        def call(self, images):
            return self.scale(images) + 1

    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = Block(2.0), Block(3.0)

        def call(self, images):
            return self.second(self.first(images))

    model, in_a_circle = Twins(), Twins()
    in_a_circle.first.parent = in_a_circle
    model(images)
    found = extract_activations(model, images)
    paths = ["block", "block/scale", "block_1", "block_1/scale"]
    assert paths == list(layers.named_layers(model)) == list(layers.named_layers(in_a_circle))
    expected = {
        "block/scale": 2 * images,
        "block": 2 * images + 1,
        "block_1/scale": 6 * images + 3,
        "block_1": 6 * images + 4,
    }
    assert list(found) == list(expected)
    for path, maps in expected.items():
        np.testing.assert_allclose(found[path], maps, rtol=1e-6)


@pytest.mark.parametrize("pooling", [False, True])
def test_convolution_layers_go_by_what_they_are(pooling):
    kind = type("Smart", (L.Conv2D,), {})  # its name holds "Art", not "Conv"
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            kind(2, 3, name="a"),
            L.MaxPooling2D(name="b"),
            L.DepthwiseConv2D(3, name="c"),
            L.ReLU(),
            L.GlobalAveragePooling2D(keepdims=True, name="d"),
            L.GlobalMaxPooling2D(),
        ]
    )
    assert layers.convolution_layers(model, pooling=pooling) == (
        list("abcd") if pooling else ["a", "c"]
    )


def two_branches():
    inputs = keras.Input((8, 8, 3))
    convolved = L.Conv2D(2, 3, name="conv")(inputs)
    branches = [keras.Model(inputs, convolved, name=name) for name in ("left", "right")]
    return keras.Model(inputs, L.Add()([branch(inputs) for branch in branches]))


@reported
def test_a_layer_is_found_by_path_or_bare_name(shared_network):
    model = shared_network("nested twice")
    layer = layers.named_layers(model)["backbone/inner/conv"]
    for name in ("backbone/inner/conv", "inner/conv", "conv"):
        assert layers.find_layer(model, name) == ("backbone/inner/conv", layer)
    with pytest.raises(ValueError, match=r"`layer_name` .='pulling'. is not a .*'pooling'"):
        layers.find_layer(model, "pulling")
    with pytest.raises(ValueError, match="ambiguous: choose one of .'left/conv', 'right/conv'."):
        layers.find_layer(two_branches(), "conv")
    for names in (3, [3], [None], "", ["conv", ["head"]], b"conv"):
        with pytest.raises(ValueError, match="`layer_names` .*is not a layer of .*nearest"):
            layers.find_layers(model, names)


# --------------------------------------------------------------------- the model is left alone


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


@right
def test_model_is_left_as_it_was_and_can_still_be_trained(probed_network, images):
    model, _ = probed_network
    model.get_layer("conv").trainable = False
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    for method in METHODS.values():
        method(model, images)
        assert state_of(model) == before
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
@right
def test_model_is_left_as_it_was_after_an_error_inside_it(probed_network, images, method):
    model, probe = probed_network
    for error in (RuntimeError, KeyboardInterrupt):
        probe.error = [error]
        before = state_of(model)
        with pytest.raises(error, match="planted"):
            method(model, images)
        assert state_of(model) == before
    probe.error = None
    assert np.isfinite(method(model, images)).all()


@every_method
@right
def test_augmentation_and_dropout_in_the_model_change_nothing(
    pooled_network, shared_network, images, method
):
    convolution, *end = pooled_network()[0].layers[1:]
    start = [L.RandomFlip(), L.RandomRotation(0.5)]
    start += [L.RandomContrast(0.5), L.GaussianNoise(1.0)]
    between = [L.SpatialDropout2D(0.9), L.Dropout(0.9)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *start, convolution, *between, *end])
    before = state_of(model)
    found = method(model, images)
    assert state_of(model) == before
    np.testing.assert_allclose(found, method(shared_network(), images), rtol=1e-5, atol=1e-6)


@right
def test_call_that_a_person_replaced_is_kept(pooled_network, images):
    model, convolution, _ = pooled_network()
    original = convolution.call
    convolution.call = replaced = lambda features: 2 * original(features)
    found = extract_activations(model, images)["conv"]
    assert convolution.call is replaced
    np.testing.assert_allclose(found, 2 * original(images), rtol=1e-5)


@pytest.mark.parametrize("kind", ["nested", "subclassed"])
def test_model_can_be_forgotten_after_all_methods(pooled_network, images, kind):
    model = pooled_network(kind)[0]
    layers.class_probabilities(model, images)
    extract_activations(model, images, "conv")
    grad_cam(model, images)
    ascend_filters(model, "conv", [0], steps=1, value_range=(0, 1))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


# --------------------------------------------------------------------------------------- traces


@every_method
def test_second_call_traces_nothing(probed_network, images, method):
    model, probe = probed_network
    before = len(probe.calls)
    method(model, images)
    method(model, np.concatenate([images, images]))
    assert len(probe.calls) == before + 1


def test_all_filters_and_all_classes_are_one_trace_each(probed_network, images):
    model, probe = probed_network
    before, options = len(probe.calls), {"value_range": (0, 1)}
    assert len(ascend_filters(model, "conv", steps=3, batch_size=24, **options).filters) == 64
    ascend_filters(model, "conv", [5], steps=4, seed=7, **options)
    for class_index in (None, 0, 2, [0, 1, 2]):
        grad_cam(model, images, class_index=class_index)
    assert len(probe.calls) == before + 2


def test_a_bounded_number_of_traces_is_kept(monkeypatch):
    run = sys.modules["cnnviz.layers.run"]  # the package's `run` is the function
    monkeypatch.setattr(run, "MOST_TRACES", 3)
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(1, 1, name="conv")])
    for side in (1, 2, 3, 4, 5, 1):
        found = extract_activations(model, np.ones((1, side, side, 3)))["conv"]
        np.testing.assert_allclose(found, model(np.ones((1, side, side, 3))), rtol=1e-5)
    assert len(run._traces[model]) == 3


class Doubling(L.Layer):
    """A person's own layer, with a setting."""

    def __init__(self):
        super().__init__()
        self.factor = 2.0

    def call(self, features):
        return self.factor * features


class Editable(Subclassed):
    """A network of all that a person may change after the first call."""

    def __init__(self):
        super().__init__()
        self.norm = L.Normalization()
        self.norm.adapt(np.random.default_rng(1).normal(size=(4, 12, 12, 3)))
        self.own, self.leaky = Doubling(), L.LeakyReLU(0.1)
        self.pad = L.ZeroPadding2D(1)

    def call(self, images):
        return self.combine(self.pad(self.leaky(self.own(self.conv(self.norm(images))))))


def _double(model):
    model.conv.set_weights([2 * weight for weight in model.conv.get_weights()])


def _add_lora(model):
    model.head.enable_lora(1)
    model.head.lora_kernel_b.assign([[3.0, -3.0]])


def _quantize(model):
    model.head.quantize("int8")
    model.head.kernel_scale.assign(model.head.kernel_scale / 3)


CHANGES = {
    "weights": _double,
    "activation": lambda model: setattr(model.conv, "activation", keras.activations.softplus),
    "number of a layer": lambda model: setattr(model.leaky, "negative_slope", 0.9),
    "number of an own layer": lambda model: setattr(model.own, "factor", -3.0),
    "tuple of a layer": lambda model: setattr(model.pad, "padding", ((0, 0), (2, 2))),
    "another layer": lambda model: setattr(model, "leaky", L.ELU(name="leaky")),
    "statistics": lambda model: model.norm.adapt(np.linspace(0, 9, 432).reshape(1, 12, 12, 3)),
    "LoRA": _add_lora,
    "quantized": _quantize,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@right
def test_what_changes_in_the_model_counts_at_once(images, change):
    model = Editable()
    before = layers.class_probabilities(model, images)
    change(model)
    after = layers.class_probabilities(model, images)
    np.testing.assert_allclose(after, ops.softmax(model(images)), rtol=1e-4, atol=1e-6)
    assert np.abs(after - before).max() > 1e-4


@right
def test_several_threads_on_one_model_find_what_one_does(pooled_network, shared_network, images):
    model, convolution, _ = pooled_network()
    expected = {name: method(shared_network(), images) for name, method in METHODS.items()}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = [
            (name, pool.submit(method, model, images))
            for name, method in [*METHODS.items(), *METHODS.items()]
        ]
    for name, result in found:
        np.testing.assert_allclose(result.result(), expected[name], rtol=1e-5, err_msg=name)
    assert "call" not in convolution.__dict__


# ------------------------------------------------------------------------------- batches, run


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
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    one_hot = np.eye(len(labels))[labels]
    return [
        (images, labels),
        (images, labels.tolist()),
        (images, one_hot, np.ones(len(images))),
        dataset.batch(50),
        tf.data.Dataset.zip(dataset, tf.data.Dataset.range(100)).map(lambda x, w: (*x, w)).batch(9),
        InPieces(images, labels[:, None], tuple),
        InPieces(images, labels, list),
    ]


def test_results_are_the_same_in_every_form_and_in_batches(shared_network, many):
    model, (images, labels) = shared_network(), many
    expected = ops.softmax(model(images))
    for data in (images, list(images), tuple(images), *forms(images, labels)):
        found = layers.class_probabilities(model, data)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
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

    facts = []
    options = {"key": "a test", "per_image": [labels], "check": facts.append}
    for chosen in (slice(None), slice(0, 3), slice(0)):
        found, shape = layers.run(
            model, images[chosen], compute, **options | {"per_image": [labels[chosen]]}
        )
        np.testing.assert_array_equal(found["number"], labels[chosen])
        np.testing.assert_allclose(found["sum"], images[chosen].sum((1, 2, 3)), rtol=1e-5)
        assert shape == (None, 4) and facts.pop() == shape and not facts
        found["sum"] += 1
    maps = extract_activations(model, images[:3])["conv"]
    before = maps.copy()
    maps += 1  # is nobody else's
    np.testing.assert_array_equal(extract_activations(model, images[:3])["conv"], before)


@pytest.mark.parametrize("name", FORWARD)
def test_layers_are_listed_once_however_many_batches(shared_network, many, name, monkeypatch):
    listed, model = [], shared_network("subclassed")
    METHODS[name](model, many[0])  # traced
    sublayers = layers.names.sublayers
    monkeypatch.setattr(
        layers.names, "sublayers", lambda layer: listed.append(layer) or sublayers(layer)
    )
    counts = []
    for images in (many[0][:1], many[0]):
        METHODS[name](model, images)
        counts.append(len(listed))
        listed.clear()
    assert counts[0] == counts[1]


@flagged
def test_each_warning_is_given_once_in_a_call_of_many_batches(many):
    inner = sequential()
    model = keras.Model(inner.inputs, 1 - ops.sigmoid(inner.outputs[0]))
    for method in (layers.class_probabilities, grad_cam):
        with pytest.warns(UserWarning) as told:
            method(model, 255 * many[0])
        assert sorted(str(one.message)[:8] for one in told) == ["`images`", "the mode"]
        assert {one.filename for one in told} == {__file__}


def _endless(images):
    return tf.data.Dataset.from_tensors(images).repeat()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda images: (image for image in images), "a generator. can be read only once"),
        (lambda images: "cat.jpg", "='cat.jpg'. must be images; `load_image"),
        (lambda images: [Path("cat.jpg")], "must be images; `load_image"),
        (_endless, "which never ends. must be finite: `images.take"),
        (lambda images: tf.data.Dataset.from_tensors({"image": images}), "batches that are a dict"),
        (lambda images: tf.data.Dataset.from_tensors(images).take(0), "without a single image"),
        (lambda images: (images, [0, 1]), "must have one label for each image"),
        (lambda images: ([images[0], images[1][1:]], [0, 1]), "must all have one size"),
        (lambda images: [images[0], images[1][1:]], "must all have one size"),
        (lambda images: None, "a NoneType of dtype object. must be an array of numbers"),
    ],
)
@reported
def test_data_of_another_form_is_an_error_that_tells_why(shared_network, images, make, message):
    with pytest.raises(ValueError, match=message):
        layers.class_probabilities(shared_network(), make(images))


@reported
def test_labels_are_one_class_for_each_image(shared_network, images):
    np.testing.assert_array_equal(layers.class_indices(np.eye(3), 3), [0, 1, 2])
    for labels in ([0.5, 1, 2], [0, 1], np.ones((3, 2)), [[0], [1, 2]], ["cat"] * 3, [np.nan] * 3):
        with pytest.raises(ValueError, match="`labels` .*must have one class index for each of"):
            layers.class_indices(labels, 3)
    with pytest.raises(ValueError, match=r"`data` .with labels 0..2. must have labels in \[0, 2"):
        layers.check_labels(np.arange(3), 2)
    with pytest.raises(ValueError, match="of images without labels"):
        list(layers.batches(shared_network(), images, labels=True))


@flagged
def test_shuffled_data_is_told_of():
    dataset = tf.data.Dataset.range(64)
    layers.warn_if_shuffled(dataset.batch(32))
    with pytest.warns(UserWarning, match="load it with shuffle=False"):
        layers.warn_if_shuffled(dataset.shuffle(64, seed=1).batch(32))


# --------------------------------------------------------------------------- images and models


@pytest.mark.parametrize(
    ("images", "message"),
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
        (np.zeros((1, 12, 12, 3), complex), "a ndarray of dtype complex128"),
        ("cat.jpg", "a str of dtype <U7"),
    ],
)
@reported
def test_wrong_images_are_an_error(shared_network, images, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(shared_network(), images)


@right
def test_images_of_every_kind_of_number_become_float32(shared_network, images):
    model = shared_network()
    whole = np.random.default_rng(0).integers(0, 2, (2, 12, 12, 3))
    for dtype in ("uint8", "int64", "float64", "float16", "bool"):
        found = layers.check_images(model, whole.astype(dtype))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole)
    for same in (ops.convert_to_tensor(images), list(images), images.tolist()):
        np.testing.assert_array_equal(layers.check_images(model, same), images)
    bfloat16 = layers.check_images(model, ops.cast(images, "bfloat16"))
    np.testing.assert_allclose(bfloat16, images, atol=0.01)
    np.testing.assert_array_equal(layers.check_images(model, images[0]), images[:1])


@right
def test_a_stack_of_gray_images_is_taken_for_what_it_is():
    model = keras.Sequential([keras.Input((12, 10, 1)), L.Conv2D(2, 3)])
    images = np.random.default_rng(0).uniform(size=(4, 12, 10)).astype(np.float32)
    np.testing.assert_array_equal(layers.check_images(model, images), images[..., None])
    assert layers.check_images(model, images[0, :, :, None]).shape == (1, 12, 10, 1)
    with pytest.raises(ValueError, match=r"of shape \(4, 9, 9\)\) must be \(N, 12, 10, 1\)"):
        layers.check_images(model, np.zeros((4, 9, 9)))


@right
def test_a_subclassed_model_is_given_images_as_it_was_built_with():
    model = keras.Sequential([L.Conv2D(2, 3, name="conv")])
    with pytest.raises(ValueError, match="is not built; call it once"):
        layers.check_model(model)
    model = type(
        "Gray", (Subclassed,), {"__init__": keras.Model.__init__, "call": lambda self, x: x}
    )()
    model(np.zeros((1, 20, 16, 1), np.float32))
    assert layers.image_shape(model) == (20, 16, 1)
    assert layers.image_shape(model, 28) == (28, 28, 1)


@right
def test_any_size_where_the_model_takes_any():
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3, name="conv")])
    for height, width in ((8, 8), (9, 11)):
        found = extract_activations(model, np.ones((1, height, width, 3)))
        assert found["conv"].shape == (1, height - 2, width - 2, 2)
    with pytest.raises(ValueError, match=r"must be \(N, H, W, 3\)"):
        layers.check_images(model, np.zeros((1, 9, 9, 4)))
    with pytest.raises(ValueError, match=r"`images` of shape \(None, 2, 2, 3\)") as error:
        extract_activations(model, np.zeros((1, 2, 2, 3)))
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@flagged
def test_a_model_that_takes_integers():
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    features = L.Conv2D(4, 3, name="conv")(L.Rescaling(1 / 255)(inputs))
    pooled = L.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, L.Dense(2)(pooled))
    with pytest.raises(ValueError, match="takes images as integers, which have no gradient"):
        ascend_filters(model, "conv")
    images = np.random.default_rng(0).uniform(0, 0.99, (2, 12, 12, 3))
    with pytest.warns(UserWarning, match="all the same to model .* integers: in 0..255"):
        layers.class_probabilities(model, images)
    found = layers.class_probabilities(model, 255 * images)
    np.testing.assert_allclose(found, ops.softmax(model(np.uint8(255 * images))), rtol=1e-5)


def _of_several(inputs, outputs):
    images = [keras.Input((12, 12, 3)) for _ in range(inputs)]
    joined = L.Add()(images) if inputs > 1 else images[0]
    pooled = L.GlobalAveragePooling2D()(L.Conv2D(2, 3, name="conv")(joined))
    return keras.Model(images, [L.Dense(2)(pooled) for _ in range(outputs)])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: "model.keras", "`model` .of type str. must be a keras.Model"),
        (lambda: L.Conv2D(2, 3), "of type Conv2D"),
        (lambda: keras.Sequential([L.Conv2D(2, 3)]), "is not built"),
        (lambda: _of_several(inputs=2, outputs=1), "has several inputs"),
        (lambda: keras.Sequential([keras.Input((5,)), L.Dense(2)]), "not images"),
    ],
)
@reported
def test_wrong_model_is_an_error_of_every_method(images, build, message):
    for method in METHODS.values():
        with pytest.raises(ValueError, match=message):
            method(build(), images)


@right
def test_layers_of_a_model_with_several_outputs_can_be_seen(images):
    model = _of_several(inputs=1, outputs=2)
    assert extract_activations(model, images)["conv"].shape == (3, 10, 10, 2)
    found = ascend_filters(model, "conv", steps=1, value_range=(0, 1))
    assert found.images.shape == (2, 12, 12, 3)


@reported
def test_images_that_a_subclassed_model_does_not_take_are_an_error_in_one_line(images):
    class Named(Subclassed):
        def call(self, inputs):
            return super().call(inputs["image"])

    for model, given in ((Named(), images), (Subclassed(), images[..., :1])):
        for name in FORWARD:
            with pytest.raises(ValueError, match=r"cannot be called on `images` of sh") as error:
                METHODS[name](model, given)
            assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
    assert np.isfinite(METHODS[name](model, images)).all()


@reported
def test_channels_first_is_an_error_whose_remedy_works(images):
    def build(data_format, axis):
        inputs = keras.Input((12, 12, 3) if axis == -1 else (3, 12, 12))
        options = {"data_format": data_format}
        features = L.Conv2D(4, 1, name="first", **options)(inputs)
        features = L.BatchNormalization(axis=axis, name="norm")(features)
        pooled = L.GlobalAveragePooling2D(**options)(features)
        return keras.Model(inputs, L.Dense(2)(pooled))

    first = build("channels_first", axis=1)
    first.get_layer("norm").moving_mean.assign([1, 2, 3, 4])
    for method in METHODS.values():
        with pytest.raises(ValueError, match="channels first in layer 'first'; build it with") as e:
            method(first, images)
    assert 'data_format="channels_last"' in str(e.value) and "axis=-1" in str(e.value)
    last = build("channels_last", axis=-1)
    last.set_weights(first.get_weights())
    weights = [weight.numpy() for weight in first.weights]
    features = (images @ weights[0][0, 0] - [1, 2, 3, 4]) / np.sqrt(1 + 1e-3)
    logits = features.mean((1, 2)) @ weights[-2]
    np.testing.assert_allclose(
        layers.class_probabilities(last, images), ops.softmax(logits), rtol=1e-5
    )


@reported
def test_layers_that_cannot_be_recorded_are_told_of(images):
    class Compiled(Subclassed):
        @tf.function
        def call(self, images):
            return super().call(images)

    class Choosing(Subclassed):
        def call(self, images):
            chosen = [lambda: self.conv(images), lambda: self.conv(-images)]
            return self.combine(ops.cond(ops.sum(images) > 0, *chosen))

    class Deciding(Subclassed):
        def call(self, images):
            features = self.conv(images)
            return self.combine(features if tf.reduce_sum(features) > 0 else -features)

    for kind in (Compiled, Choosing, Deciding):
        model = kind()
        for method in (extract_activations, grad_cam):
            with pytest.raises(ValueError, match="where they cannot be recorded: in a tf.function"):
                method(model, images)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@right
def test_mixed_precision_gives_finite_float32_near_the_full_precision(
    pooled_network, shared_network, images, policy
):
    full = shared_network(head="softmax")
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


# ---------------------------------------------------------------------------------- value range


def adapted(scale):
    normalization = L.Normalization()
    normalization.adapt(scale * np.random.default_rng(1).uniform(0, 1, (9, 12, 12, 3)))
    return normalization


def by_operations():
    inputs = keras.Input((12, 12, 3))
    features = L.Conv2D(2, 3, name="conv")(inputs / 127.5 - 1)
    return keras.Model(inputs, L.GlobalAveragePooling2D()(features))


class Dividing(Subclassed):
    def call(self, images):
        return super().call(images / 255)


def nested_rescaling():
    inner = keras.Sequential([keras.Input((12, 12, 3)), L.Rescaling(1 / 255)])
    return sequential(L.RandomFlip(), inner)


TAKE_0_TO_255 = {
    "Rescaling to -1..1": lambda: sequential(L.Rescaling(1 / 127.5, offset=-1)),
    "Normalization": lambda: sequential(adapted(255)),
    "operations": by_operations,
    "subclassed": lambda: Dividing(),
    "in a nested model": nested_rescaling,
}
TAKE_0_TO_1 = {
    "nothing": lambda: sequential(),
    "Rescaling to -1..1": lambda: sequential(L.Rescaling(2.0, offset=-1)),
    "Normalization": lambda: sequential(adapted(1)),
}


def called(name, model, images):
    """Any of the methods; ascent is told the range of the images."""
    if name == "ascend_filters":
        return ascend_filters(model, "conv", [0], steps=1, value_range=(0, round(images.max())))
    return METHODS[name](model, images)


@pytest.mark.parametrize("kind", TAKE_0_TO_255)
@flagged
def test_images_in_0_to_1_for_a_model_that_takes_0_to_255_are_flagged(images, kind):
    model = TAKE_0_TO_255[kind]()
    for name in METHODS if kind == "operations" else FORWARD[:1]:
        argument = "value_range" if name == "ascend_filters" else "images"
        with pytest.warns(UserWarning, match=f"`{argument}` .*too small .*takes images in 0..255"):
            called(name, model, images)
        called(name, model, 255 * images)  # a warning would be an error
    for constant in (0, np.float32([0.1, 0.2, 0.3])):  # nothing can be said of one color
        layers.class_probabilities(model, 0 * images + constant)


@pytest.mark.parametrize("kind", TAKE_0_TO_1)
@flagged
def test_images_in_0_to_255_for_a_model_that_takes_0_to_1_are_flagged(images, kind):
    model = TAKE_0_TO_1[kind]()
    for name in METHODS if kind == "nothing" else FORWARD[:1]:
        argument = "value_range" if name == "ascend_filters" else "images"
        with pytest.warns(UserWarning, match=f"`{argument}` .*too large .*0..1 perhaps"):
            called(name, model, 255 * images)
        called(name, model, images)
        if name != "ascend_filters":
            called(name, model, 2 * images - 1)
            called(name, model, (images - images.mean()) / images.std())


def test_images_whose_mean_is_subtracted_are_not_flagged(images):
    mean = np.array([103.9, 116.8, 123.7], np.float32)
    layers.class_probabilities(sequential(), 255 * images - mean)
    inside = L.Rescaling(1.0, offset=(-mean).tolist())
    layers.class_probabilities(sequential(inside), 255 * images)


@flagged
def test_range_is_measured_anew_in_each_call(images):
    norm = L.BatchNormalization()
    model = sequential(norm)
    layers.class_probabilities(model, images)
    norm.moving_variance.assign([5000.0] * 3)  # as if it had been trained on 0..255
    with pytest.warns(UserWarning, match="too small"):
        layers.class_probabilities(model, images)


# -------------------------------------------------------------------------------------- NaN


def with_nan(pooled_network, name):
    model = pooled_network()[0]
    kernel, bias = model.get_layer(name).get_weights()
    kernel.flat[1] = np.nan
    model.get_layer(name).set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("name", [name for name in METHODS if name != "extract_activations"])
@reported
def test_nan_in_the_weights_is_an_error_that_names_the_layer(pooled_network, images, name):
    """The ReLU may hide it: oneDNN's convolution with ReLU turns NaN into 0."""
    with pytest.raises(ValueError, match="NaN or infinity: the weights of its layer 'conv' hold"):
        METHODS[name](with_nan(pooled_network, "conv"), images)


@flagged
def test_activations_with_nan_are_given_and_flagged(pooled_network, images):
    """They are what one looks at to find where NaN begins."""
    with pytest.warns(UserWarning, match="the weights of layer 'conv' hold NaN or infinity"):
        extract_activations(with_nan(pooled_network, "conv"), images, "pooling")
    with pytest.warns(UserWarning) as told:
        found = extract_activations(with_nan(pooled_network, "head"), images, ["conv", "head"])
    assert all("of layer 'head'" in str(one.message) for one in told) and len(told) == 2
    assert np.isfinite(found["conv"]).all() and np.isnan(found["head"]).any()


@flagged
def test_infinity_that_comes_about_in_a_layer_is_flagged(pooled_network, images):
    model = pooled_network()[0]
    model.set_weights([1e30 * weight for weight in model.get_weights()])
    with pytest.warns(UserWarning, match="NaN or infinity comes out of layer 'head', the first"):
        found = extract_activations(model, images, ["conv", "head"])
    assert np.isfinite(found["conv"]).all() and not np.isfinite(found["head"]).all()
    with pytest.raises(ValueError, match="its weights are finite; extract_activations shows where"):
        layers.class_probabilities(model, images)


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


@pytest.mark.parametrize("path", ["outer", "outer/middle", "outer/middle/inner"])
@reported
def test_nan_in_the_own_weight_of_a_composite_is_told_with_its_name(images, path):
    inner = L.Conv2D(2, 3, name="inner")
    middle = Scaled(inner, name="middle")
    outer = Scaled(middle, name="outer")
    model = sequential(outer)
    assert layers.broken_layer(model) is None
    grad_cam(model, images)  # traced before there is a NaN
    owner = {"outer": outer, "middle": middle, "inner": inner}[path.rpartition("/")[2]]
    weight = owner.bias if owner is inner else owner.scale
    weight.assign(weight * np.nan)
    assert layers.broken_layer(model) == path
    with pytest.raises(ValueError, match=f"the weights of its layer '{path}' hold it"):
        grad_cam(model, images)
    with pytest.warns(UserWarning, match=f"the weights of layer '{path}' hold NaN"):
        extract_activations(model, images[:0])


@right
def test_weights_that_are_infinite_or_very_large(pooled_network, images):
    model, convolution, _ = pooled_network()
    kernel, bias = convolution.get_weights()
    for large in (1e25, 3e38):  # whose squares overflow
        convolution.set_weights([np.full_like(kernel, large), bias])
        assert layers.broken_layer(model) is None
    convolution.set_weights([np.full_like(kernel, 1e25), bias])
    extract_activations(model, 1e-3 * images)  # a warning would be an error
    kernel[0, 0, 0, :2] = np.inf, -np.inf
    convolution.set_weights([kernel, bias])
    with pytest.raises(ValueError, match="weights of its layer 'conv'"):
        layers.class_probabilities(model, images)
