"""Models with several inputs, of signals and volumes, datasets of them, and transformers."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnviz

L = keras.layers
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 1, (40, 12, 12, 3)).astype(np.float32)
TABLE = RANDOM.normal(size=(40, 4)).astype(np.float32)
LABELS = np.arange(40) % 2


@pytest.fixture(scope="module")
def with_table():
    """A model of an image and a table, in which a convolution sees the image alone."""
    image, table = keras.Input((12, 12, 3), name="image"), keras.Input((4,), name="table")
    maps = L.Conv2D(4, 3, activation="relu", name="conv")(image)
    both = L.Concatenate()([L.GlobalAveragePooling2D()(maps), L.Dense(3, name="first")(table)])
    return keras.Model({"image": image, "table": table}, L.Dense(2)(both))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * (index + 1))
        return {"image": IMAGES[part], "table": TABLE[part]}, LABELS[part]


def test_datasets_give_the_results_of_arrays_in_order(with_table):
    data = {"image": IMAGES, "table": TABLE}
    expected = cnnviz.grad_cam(with_table, data)
    for given in (
        [IMAGES, TABLE],
        (IMAGES, TABLE),
        (data, LABELS),
        ([IMAGES, TABLE], LABELS),
        tf.data.Dataset.from_tensor_slices((data, LABELS)).batch(7),
        tf.data.Dataset.from_tensor_slices(data).batch(64),
        Batches(),
    ):
        found = cnnviz.grad_cam(with_table, given)
        np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found.images, IMAGES)
        probabilities = cnnviz.class_probabilities(with_table, given)
        logits = with_table.predict(data, verbose=0)
        np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), rtol=1e-5)
    each = cnnviz.grad_cam(with_table, Batches(), class_index=LABELS)
    np.testing.assert_array_equal(each.class_index, LABELS)


def test_diagnosis_of_several_inputs(with_table):
    data = {"image": IMAGES, "table": TABLE}
    predicted = with_table.predict(data, verbose=0).argmax(1)
    found = cnnviz.confident_mistakes(with_table, (data, 1 - predicted), (data, LABELS))
    assert found.images.shape == (6, 12, 12, 3) and found.neighbors.shape == (6, 4, 12, 12, 3)
    np.testing.assert_array_equal(found.images, IMAGES[found.image_index])
    found.plot()
    assert cnnviz.filter_census(with_table, data).n_images == 40
    changes = cnnviz.compare_models(with_table, with_table, data)
    assert not changes.weights.any()
    assert cnnviz.suspect_labels(with_table, (data, LABELS)).images.shape[1:] == (12, 12, 3)


def test_range_is_judged_by_the_image_and_not_by_the_table(with_table):
    """The first kernel is that of the table, whose numbers may be large."""
    cnnviz.class_probabilities(with_table, [IMAGES, 1000 * TABLE])
    with pytest.warns(UserWarning, match="look too large"):
        cnnviz.class_probabilities(with_table, [255 * IMAGES, TABLE])


BOTH = [IMAGES, TABLE]
WRONG = [
    (IMAGES, {}, "`images` .ndarray. must be a list or a dict of the 2 inputs .*'image', 'table'"),
    ({"image": IMAGES}, {}, r"keys \['image'\]. must be a list or a dict of the 2 inputs"),
    ([IMAGES, TABLE[:3]], {}, "must have as many rows in each input"),
    ([IMAGES, TABLE[:, :2]], {}, r"`images\['table'\]`.*must be \(N, 4\)"),
    (BOTH, {"input_name": "table"}, "`input_name` .='table'. must be one of .*'image'"),
    (BOTH, {"input_name": 2}, "`input_name` .=2. must be one of"),
    (BOTH, {"layer_name": "first"}, "choose a layer before the pooling"),
]


@pytest.mark.parametrize(("data", "options", "message"), WRONG)
def test_wrong_inputs_are_errors(with_table, data, options, message):
    with pytest.raises(ValueError, match=message):
        cnnviz.grad_cam(with_table, data, **options)


def test_ascent_in_one_input_needs_a_layer_that_sees_it_alone(with_table):
    found = cnnviz.ascend_filters(with_table, "conv", [0, 1], steps=4, value_range=(0, 1))
    means = with_table.get_layer("conv")(found.images).numpy().mean((1, 2))
    np.testing.assert_allclose(found.activations, means[[0, 1], [0, 1]], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="depends on several inputs"):
        cnnviz.ascend_filters(with_table, class_index=0)


def siamese():
    """(model of two images by one network, that network)."""
    keras.utils.set_random_seed(0)
    steps = [L.Conv2D(4, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(5)]
    network = keras.Sequential([keras.Input((12, 12, 3)), *steps], name="network")
    pair = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    return keras.Model(pair, L.Dense(1)(L.Multiply()(list(map(network, pair))))), network


@pytest.mark.parametrize("look", [0, 1])
def test_shared_layer_is_looked_at_in_the_chosen_input(look):
    model, network = siamese()
    pair = [IMAGES[:3], IMAGES[3:6]]
    found = cnnviz.grad_cam(model, pair, input_name=look, signed=True, class_index=1)
    convolution, flatten, dense = network.layers
    features = convolution(pair[look])
    with tf.GradientTape() as tape:
        tape.watch(features)
        other = network(pair[1 - look])
        score = model.layers[-1](dense(flatten(features)) * other)[:, 0]
    slopes = tape.gradient(score, features)
    expected = tf.reduce_sum(tf.reduce_mean(slopes, (1, 2), keepdims=True) * features, 3)
    np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.images, pair[look])


def test_signals_and_volumes_without_a_batch_axis_or_channels():
    signal = keras.Sequential([keras.Input((30, 1)), L.Conv1D(2, 3), L.Flatten(), L.Dense(2)])
    values = RANDOM.normal(size=(5, 30))
    assert cnnviz.grad_cam(signal, values).maps.shape == (5, 28)
    assert cnnviz.grad_cam(signal, values[0][:, None]).maps.shape == (1, 28)
    with pytest.raises(ValueError, match=r"must be \(N, 30, 1\)"):
        cnnviz.grad_cam(signal, np.zeros((5, 31, 1)))
    found = cnnviz.confident_mistakes(signal, (values, [0, 1, 0, 1, 0]))
    assert "<table" in found._repr_html_()
    with pytest.raises(ValueError, match="must be of images"):
        found.plot()


class Windows(L.Layer):
    """Folds windows into the first axis, as window attention does."""

    def __init__(self):
        super().__init__(name="windows")
        self.inner = L.Conv2D(4, 1, name="inner")

    def call(self, maps):
        folded = keras.ops.reshape(maps, (-1, 5, 5, 4))
        return keras.ops.reshape(self.inner(folded), (-1, 10, 10, 4))


def test_windows_in_the_first_axis_are_an_error_and_not_taken_for_images():
    steps = [L.Conv2D(4, 3, activation="relu"), Windows(), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *steps])
    assert cnnviz.grad_cam(model, IMAGES[:4]).layer_name == "windows"
    assert {len(maps) for maps in cnnviz.extract_activations(model, IMAGES[:4]).values()} == {4}
    with pytest.raises(ValueError, match="16 rows of 4 images: a layer folds windows"):
        cnnviz.grad_cam(model, IMAGES[:4], layer_name="inner")
    with pytest.raises(ValueError, match="outputs several rows for an image: the layer folds"):
        cnnviz.extract_activations(model, IMAGES[:4], "inner")


def test_default_layer_before_attention_is_warned_of():
    """Eighty tokens come of a hundred positions: their grid is unknown."""
    image = keras.Input((12, 12, 3))
    maps = L.Conv2D(4, 3, activation="relu", name="conv")(image)
    tokens = L.Dense(4)(L.Reshape((80, 5))(maps))
    tokens = L.Dense(4)(L.MultiHeadAttention(2, 4)(tokens, tokens))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling1D()(tokens)))
    with pytest.warns(UserWarning, match="layer 'conv', which is taken, lies before attention"):
        cnnviz.grad_cam(model, IMAGES[:2])


def with_tokens(n_before, n_behind):
    """(transformer of 4x4 patches among other tokens, their layer "joined", the patches' layer)."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    patches = L.Conv2D(8, 3, strides=3, name="patches")(image)
    tokens = L.Reshape((16, 8), name="flat")(patches)
    parts = [L.Lambda(lambda x, n=n: 0.5 + 0 * x[:, :n])(tokens) for n in (n_before, n_behind) if n]
    parts.insert(n_before > 0, tokens)
    tokens = L.Concatenate(axis=1, name="joined")(parts)
    tokens = L.Add()([tokens, L.MultiHeadAttention(2, 4)(tokens, tokens)])
    return keras.Model(image, L.Dense(2)(L.Dense(3)(tokens)[:, 0]))


@pytest.mark.parametrize("others", [(1, 0), (0, 1), (1, 4), (9, 0)])
def test_grid_of_patches_is_found_among_other_tokens(others):
    """Class token, distillation tokens and registers; with nine of them, 25 is a square."""
    model = with_tokens(*others)
    found = cnnviz.extract_activations(model, IMAGES[:2])
    np.testing.assert_array_equal(found["joined"], found["patches"])


def test_heads_of_attention_are_no_positions():
    image = keras.Input((12, 12, 3))
    tokens = L.Reshape((16, 8))(L.Conv2D(8, 3, strides=3, name="patches")(image))
    split = [L.Permute((2, 1, 3))(L.Reshape((16, 2, 4))(L.Dense(8)(tokens))) for _ in range(3)]
    weights = keras.ops.softmax(keras.ops.matmul(split[0], keras.ops.swapaxes(split[1], 2, 3)))
    merged = L.Permute((2, 1, 3))(keras.ops.matmul(weights, split[2]))
    tokens = L.Dense(8, name="mixed")(L.Reshape((16, 8))(merged))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling1D()(tokens)))
    found = cnnviz.grad_cam(model, IMAGES[:2])
    assert (found.layer_name, found.maps.shape) == ("mixed", (2, 4, 4))
    maps = cnnviz.extract_activations(model, IMAGES[:2]).values()
    assert {one.shape[1:3] for one in maps}.isdisjoint({(2, 16), (16, 2), (16, 16)})


def test_function_that_changes_or_holds_the_model_is_traced_anew(with_table):
    data, chosen = {"image": IMAGES, "table": TABLE}, [0]
    logits = with_table.predict(data, verbose=0)

    def look(model):
        return cnnviz.grad_cam(
            model, data, target=lambda y: y[:, chosen[0]] + 0 * len(model.layers)
        )

    for index in (0, 1):
        chosen[0] = index
        model = keras.models.clone_model(with_table)
        model.set_weights(with_table.get_weights())
        np.testing.assert_allclose(look(model).scores, logits[:, index], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(look(with_table).scores, logits[:, index], rtol=1e-4, atol=1e-5)
    get_model = weakref.ref(model)
    del model
    gc.collect()
    assert get_model() is None
