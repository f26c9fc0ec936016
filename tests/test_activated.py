"""Convolutions without an activation, against their layers called one after the other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import ascend_filters, extract_activations, filter_census, top_patches

L = keras.layers
FOLLOWING = {  # what a `Network` does behind its normalization, and the name in the census
    "layer": (lambda self, x, images: self.relu(x), "relu"),
    "silu": (lambda self, x, images: self.silu(x), "silu"),
    "in call": (lambda self, x, images: tf.nn.relu(x), "conv"),
    "residual": (lambda self, x, images: tf.nn.relu(x + images[:, 1:-1, 1:-1, :2]), "conv"),
}
LINEAR = {  # where no activation follows the filter alone
    "pre-activation": lambda self, x, images: x + tf.nn.avg_pool2d(self.relu(x), 3, 1, "SAME"),
    "projection": lambda self, x, images: x,
    "pooling": lambda self, x, images: self.relu(tf.nn.max_pool2d(x, 2, 2, "SAME")),
    "gate": lambda self, x, images: x * tf.sigmoid(tf.reduce_mean(x, (1, 2), keepdims=True)),
    "softmax": lambda self, x, images: tf.nn.softmax(x),
}


class Network(keras.Model):
    def __init__(self, follow):
        super().__init__()
        random = keras.initializers.RandomNormal(stddev=0.5, seed=1)
        self.conv = L.Conv2D(2, 3, kernel_initializer=random, name="conv")
        self.norm, self.next = L.BatchNormalization(beta_initializer=random), L.Conv2D(2, 1)
        self.relu, self.silu = L.ReLU(name="relu"), L.Activation("silu", name="silu")
        self.follow = follow
        self(np.zeros((1, 12, 12, 3), np.float32))

    def maps(self, images):
        return self.follow(self, self.norm(self.conv(images)), images)

    def call(self, images):
        return self.next(self.maps(images))


@pytest.mark.parametrize(("follow", "name"), FOLLOWING.values(), ids=FOLLOWING)
def test_a_filter_is_looked_at_behind_its_activation(images, follow, name):
    model = Network(follow)
    ascended = ascend_filters(model, "conv", value_range=(0, 1))
    means = model.maps(ascended.images).numpy().mean((1, 2))[[0, 1], [0, 1]]
    np.testing.assert_allclose(ascended.activations, means, rtol=1e-4)
    assert ascended.layer_name == "conv" and ascended.verdicts == ("ok", "ok")
    found, maps = top_patches(model, images, "conv", n_patches=1), model.maps(images).numpy()
    np.testing.assert_allclose(found.activations[:, 0], maps.max((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found.mean_activations, maps.mean((1, 2)).max(0), rtol=1e-4)
    for names in (None, "conv"):
        census = filter_census(model, images, names).layers[0]
        assert census.layer_name == (names or name)
        np.testing.assert_allclose(census.firing, (maps > 0).mean((0, 1, 2)), atol=1e-6)


@pytest.mark.parametrize("follow", LINEAR.values(), ids=LINEAR)
def test_a_filter_that_no_activation_follows_stays_linear(images, follow):
    model = Network(follow)
    maps = extract_activations(model, images, "conv")["conv"]
    found = top_patches(model, images, "conv", n_patches=1)
    np.testing.assert_allclose(found.mean_activations, maps.mean((1, 2)).max(0), rtol=1e-4)
