"""Crops against all feature maps at once, and against the network fed with nothing but the crop."""

import keras
import numpy as np
import pytest

from cnnviz.activations import extract_activations
from cnnviz.exciting_crops import exciting_crops
from cnnviz.layers import BATCH_SIZE


def network(padding="valid", size=None, attention=False):
    """Convolutions of weights around zero, so that filters fire here and there."""
    images = keras.Input((size, size, 3))
    features = images
    for index, strides in enumerate((2, 1, 2)):
        initializer = keras.initializers.RandomNormal(stddev=0.5, seed=index)
        features = keras.layers.Conv2D(
            6, 3, strides, padding, activation="relu", kernel_initializer=initializer
        )(features)
    if attention:
        weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
        features = features * keras.ops.sigmoid(weights)
    return keras.Model(images, keras.layers.Identity(name="last")(features))


def pictures(count=9, height=31, width=37):
    return np.random.default_rng(0).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4])
def test_strongest_of_all_feature_maps(count):
    model, images = network("same"), pictures(BATCH_SIZE + 3)
    found = exciting_crops(model, images, "last", [4, 1], count=count)
    maps = extract_activations(model, images, "last")["last"]
    for row, index in enumerate((4, 1)):
        own = maps[..., index]
        peaks = own.max((1, 2))
        best = np.argsort(-peaks)[:count]
        np.testing.assert_array_equal(found.image_index[row], best)
        np.testing.assert_allclose(found.activations[row], peaks[best], rtol=1e-5)
        places = [np.unravel_index(own[i].argmax(), own[i].shape) for i in best]
        np.testing.assert_array_equal(found.positions[row], places)
        assert found.mean_activations[row] == pytest.approx(own.mean((1, 2)).max(), rel=1e-5)
    assert found.filters.tolist() == [4, 1] and found.layer_name == "last"


def test_crop_alone_gives_the_activation():
    model = network()
    found = exciting_crops(model, pictures(), "last")
    assert found.crops.shape == (6, 4, 11, 11, 3) and found.crops.dtype == np.float32
    for row, index in enumerate(found.filters):
        (alone,) = extract_activations(model, found.crops[row], "last").values()
        assert alone.shape == (4, 1, 1, 6)
        np.testing.assert_allclose(alone[:, 0, 0, index], found.activations[row], rtol=1e-4)


def test_crop_at_the_edge_is_filled_where_the_picture_ends():
    """A filter that copies; each picture has its one bright pixel in another corner."""
    kernel = np.zeros((5, 5, 1, 1))
    kernel[2, 2] = 1
    conv = keras.layers.Conv2D(1, 5, padding="same", use_bias=False, name="conv")
    model = keras.Sequential([keras.Input((8, 9, 1)), conv])
    conv.set_weights([kernel])
    images = np.full((4, 8, 9, 1), -3.0, np.float32)
    corners = [(0, 0), (0, 8), (7, 0), (7, 8)]
    for image, corner in zip(images, corners, strict=True):
        image[corner] = 7
    found = exciting_crops(model, images, "conv")
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=2)  # of -3 and 7
    for crop, image, position in zip(
        found.crops[0], padded[found.image_index[0]], found.positions[0], strict=True
    ):
        row, column = position
        np.testing.assert_array_equal(crop, image[row : row + 5, column : column + 5])
    np.testing.assert_array_equal(found.positions[0], np.array(corners)[found.image_index[0]])


def test_new_weights_count_at_once(pooled_network, images):
    model, convolution, _ = pooled_network()
    before = exciting_crops(model, images, "conv", count=2)
    convolution.set_weights([2 * weights for weights in convolution.get_weights()])
    after = exciting_crops(model, images, "conv", count=2)
    np.testing.assert_allclose(after.activations, 2 * before.activations, rtol=1e-5)


def test_layer_that_sees_everything_gives_whole_pictures():
    images = pictures()
    found = exciting_crops(network("same", attention=True), images, "last", 2)
    np.testing.assert_array_equal(found.crops, images[found.image_index])


@pytest.mark.parametrize("count", [0, 2.0, "4", None])
def test_wrong_count_is_an_error(pooled_network, images, count):
    with pytest.raises(ValueError, match="`count` .=.*must be an integer, 1 or more"):
        exciting_crops(pooled_network()[0], images, "conv", count=count)


def test_fewer_pictures_than_crops_are_an_error(pooled_network, images):
    with pytest.raises(ValueError, match=r"`images` \(=3 of them\) must be at least `count` \(=4"):
        exciting_crops(pooled_network()[0], images, "conv")


@pytest.mark.parametrize("filters", [6, -1, [], 1.0, [[0, 1]]])
def test_wrong_filters_are_an_error(pooled_network, images, filters):
    with pytest.raises(ValueError, match="`filters`"):
        exciting_crops(pooled_network()[0], images, "conv", filters, count=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [("conf", "nearest are.*'conv'"), ("head", r"'head'. outputs shape \(None, 4\)")],
)
def test_wrong_layer_is_an_error(pooled_network, images, name, message):
    with pytest.raises(ValueError, match=message):
        exciting_crops(pooled_network()[0], images, name, count=1)
