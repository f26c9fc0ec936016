"""Patches against all feature maps at once, and boxes against changes of single pixels."""

import keras
import numpy as np
import pytest

from cnnviz.activations import extract_activations
from cnnviz.layers import BATCH_SIZE
from cnnviz.top_patches import top_patches


def network(padding="valid", size=None, attention=False, positive=False):
    """Convolutions of weights around zero, so that filters fire here and there."""
    images = keras.Input((size, size, 3))
    features = images
    for index, strides in enumerate((2, 1, 2)):
        initializer = keras.initializers.RandomNormal(stddev=0.5, seed=index)
        if positive:
            initializer = keras.initializers.RandomUniform(0.1, 1, seed=index)
        features = keras.layers.Conv2D(
            6, 3, strides, padding, activation="relu", kernel_initializer=initializer
        )(features)
    if attention:
        weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
        features = features * keras.ops.sigmoid(weights)
    return keras.Model(images, keras.layers.Identity(name="last")(features))


def noise(n_images=9, height=31, width=37, low=-1):
    random = np.random.default_rng(0)
    return random.uniform(low, 1, (n_images, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("n_patches", [1, 4])
def test_strongest_of_all_feature_maps(n_patches):
    model, images = network("same"), noise(BATCH_SIZE + 3)
    found = top_patches(model, images, "last", [4, 1], n_patches=n_patches)
    maps = extract_activations(model, images, "last")["last"]
    for row, index in enumerate((4, 1)):
        own = maps[..., index]
        peaks = own.max((1, 2))
        best = np.argsort(-peaks)[:n_patches]
        np.testing.assert_array_equal(found.image_index[row], best)
        np.testing.assert_allclose(found.activations[row], peaks[best], rtol=1e-5)
        positions = [np.unravel_index(own[i].argmax(), own[i].shape) for i in best]
        np.testing.assert_array_equal(found.positions[row], positions)
        assert found.mean_activations[row] == pytest.approx(own.mean((1, 2)).max(), rel=1e-5)
    assert found.filters.tolist() == [4, 1] and found.layer_name == "last"
    assert found.to_frame()["filter"].tolist() == [4] * n_patches + [1] * n_patches


def test_box_is_the_receptive_field_where_no_filter_is_off():
    """Of 3x3 with strides 2, 1, 2 without padding: 11 pixels wide, every 4 pixels."""
    found = top_patches(network(positive=True), noise(low=0.1), "last")
    np.testing.assert_array_equal(found.boxes[..., :2], 4 * found.positions)
    np.testing.assert_array_equal(found.boxes[..., 2:], 4 * found.positions + 11)
    assert found.patches.shape == (6, 4, 11, 11, 3) and found.patches.dtype == np.float32


def test_box_holds_every_pixel_that_changes_the_activation():
    model, images = network("same"), noise()
    found = top_patches(model, images, "last", 3, n_patches=1)
    image = images[found.image_index[0, 0]]
    top, left, bottom, right = found.boxes[0, 0]
    row, column = found.positions[0, 0]
    pixels = [(y, x) for y in range(31) for x in range(37)]
    changed = np.repeat(image[None], len(pixels), axis=0)
    for copy, (y, x) in zip(changed, pixels, strict=True):
        copy[y, x] += 1e-3
    values = extract_activations(model, changed, "last")["last"][:, row, column, 3]
    moved = np.array([p for p, v in zip(pixels, values, strict=True) if v != values[0]])
    # The first pixel, in a corner, lies outside of the box.
    assert (top, left) > (0, 0) and len(moved)
    np.testing.assert_array_equal([*moved.min(0), *(moved.max(0) + 1)], [top, left, bottom, right])


def test_patch_at_the_edge_is_moved_into_the_image():
    """A filter that copies; each image has its one bright pixel in another corner."""
    kernel = np.zeros((5, 5, 1, 1))
    kernel[2, 2] = 1
    kernel[0, 0] = kernel[4, 4] = 1e-3
    conv = keras.layers.Conv2D(1, 5, padding="same", use_bias=False, name="conv")
    model = keras.Sequential([keras.Input((8, 9, 1)), conv])
    conv.set_weights([kernel])
    images = np.full((3, 8, 9, 1), -3.0, np.float32)
    for image, (row, column) in zip(images, [(0, 0), (7, 8), (4, 4)], strict=True):
        image[row, column] = 7
    found = top_patches(model, images, "conv", n_patches=3)
    expected = {0: images[0, :5, :5], 1: images[1, 3:, 4:], 2: images[2, 2:7, 2:7]}
    for patch, index in zip(found.patches[0], found.image_index[0], strict=True):
        np.testing.assert_array_equal(patch, expected[index])


def test_layer_that_sees_everything_gives_whole_images():
    images = noise()
    found = top_patches(network("same", attention=True), images, "last", 2)
    np.testing.assert_array_equal(found.patches, images[found.image_index])


def test_dead_filter_has_empty_boxes(pooled_network, images):
    model, convolution, _ = pooled_network()
    kernel, bias = convolution.get_weights()
    convolution.set_weights([kernel, bias - 100])
    found = top_patches(model, images, "conv", 0, n_patches=2)
    assert not found.boxes.any() and not found.activations.any()


def test_wrong_number_of_patches_is_an_error(shared_network, images):
    for n_patches in (0, 2.0, "4", None):
        with pytest.raises(ValueError, match="`n_patches` .=.*must be an integer, 1 or more"):
            top_patches(shared_network(), images, "conv", n_patches=n_patches)
    with pytest.raises(ValueError, match=r"`images` \(=3 of them\) must be at least `n_patches`"):
        top_patches(shared_network(), images, "conv")


def test_a_wrong_value_range_is_one_warning(pooled_network, images):
    with pytest.warns(UserWarning, match="look too large") as told:
        top_patches(pooled_network()[0], 255 * images, "conv", n_patches=2)
    assert len(told) == 1
