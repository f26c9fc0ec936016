"""Convolutions without an activation, against what follows them, computed layer by layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import ascend_filters, extract_activations, filter_census, top_patches

L = keras.layers


class Network(keras.Model):
    """A convolution, its normalization, `end(self, maps, cropped images)`, a next convolution."""

    def __init__(self, end):
        super().__init__()
        random = keras.initializers.RandomNormal(stddev=0.5, seed=1)
        self.conv = L.Conv2D(2, 3, kernel_initializer=random, name="conv")
        self.norm, self.next = L.BatchNormalization(beta_initializer=random), L.Conv2D(2, 1)
        self.relu, self.silu = L.ReLU(name="relu"), L.Activation("silu", name="silu")
        self.end = end

    def call(self, images):
        maps = self.norm(self.conv(images))
        return self.next(self.end(self, maps, images[:, 1:-1, 1:-1, :2]))


FOLLOWING = {  # how a `Network` goes on, the same by hand, the name in the census
    "layer": (lambda self, x, _: self.relu(x), lambda x, _: np.maximum(x, 0), "relu"),
    "silu": (lambda self, x, _: self.silu(x), lambda x, _: x / (1 + np.exp(-x)), "silu"),
    "in call": (lambda self, x, _: tf.nn.relu(x), lambda x, _: np.maximum(x, 0), "conv"),
    "residual": (lambda self, x, y: tf.nn.relu(x + y), lambda x, y: np.maximum(x + y, 0), "conv"),
}
LINEAR = {  # where no activation follows the filter alone
    "pre-activation": lambda self, x, _: x + tf.nn.avg_pool2d(self.relu(x), 3, 1, "SAME"),
    "projection": lambda self, x, _: x,
    "pooling": lambda self, x, _: self.relu(tf.nn.max_pool2d(x, 2, 2, "SAME")),
    "gate": lambda self, x, _: x * tf.sigmoid(tf.reduce_mean(x, (1, 2), keepdims=True)),
    "softmax": lambda self, x, _: tf.nn.softmax(x),
}


@pytest.mark.parametrize(("end", "by_hand", "name"), FOLLOWING.values(), ids=FOLLOWING)
def test_a_filter_is_looked_at_behind_its_activation(images, end, by_hand, name):
    model = Network(end)
    model(images)

    def expected(images):
        return by_hand(model.norm(model.conv(images)).numpy(), images[:, 1:-1, 1:-1, :2])

    ascended = ascend_filters(model, "conv", value_range=(0, 1))
    means = expected(ascended.images).mean((1, 2))[[0, 1], [0, 1]]
    np.testing.assert_allclose(ascended.activations, means, rtol=1e-4)
    assert ascended.layer_name == "conv" and ascended.verdicts == ("ok", "ok")
    found, maps = top_patches(model, images, "conv", n_patches=1), expected(images)
    np.testing.assert_allclose(found.activations[:, 0], maps.max((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found.mean_activations, maps.mean((1, 2)).max(0), rtol=1e-4)
    for names in (None, "conv"):
        census = filter_census(model, images, names).layers
        assert [one.layer_name for one in census] == [name if names is None else "conv"]
        np.testing.assert_allclose(census[0].firing, (maps > 0).mean((0, 1, 2)), atol=1e-6)


@pytest.mark.parametrize("end", LINEAR.values(), ids=LINEAR)
def test_a_filter_that_no_activation_follows_stays_linear(images, end):
    model = Network(end)
    model(images)
    maps = extract_activations(model, images, "conv")["conv"]
    found = top_patches(model, images, "conv", n_patches=1)
    np.testing.assert_allclose(found.mean_activations, maps.mean((1, 2)).max(0), rtol=1e-4)
