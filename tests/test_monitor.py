"""A training that is watched: the same losses, faults found before it, numbers by hand after it."""

import contextlib

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import cnnviz
from cnnviz import monitor as module
from cnnviz.layers.run import _traces
from cnnviz.monitor import Monitor

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 255, (40, 12, 12, 3)).astype(np.float32)
LABELS = np.tile([0, 1], 20)
SPARSE = "sparse_categorical_crossentropy"
QUIET = {"verbose": 0, "batch_size": 20}


def build(loss=SPARSE, activation="softmax", outputs=2, optimizer="adam", **options):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((12, 12, 3)), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.Conv2D(4, 3, name="first"), keras.layers.BatchNormalization()]
    layers += [keras.layers.ReLU(), keras.layers.Conv2D(6, 3, activation="relu", name="second")]
    layers += [keras.layers.Dropout(0.5), keras.layers.GlobalAveragePooling2D()]
    layers += [keras.layers.Dense(outputs, activation=activation, name="head")]
    model = keras.Sequential(layers)
    model.compile(optimizer, loss, **{"jit_compile": False} | options)
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
def test_losses_do_not_change(jit_compile):
    histories = []
    for watched in (False, True):
        model = build(jit_compile=jit_compile)
        options = QUIET | {"epochs": 3, "validation_split": 0.5}
        callbacks = [Monitor(IMAGES[:4], LABELS[:4], validation_data=IMAGES)] * watched
        histories.append(model.fit(IMAGES, LABELS, callbacks=callbacks, **options).history)
    assert histories[0] == histories[1]


def test_numbers_are_those_computed_by_hand():
    model, before, monitor = build(optimizer="sgd"), [], Monitor(IMAGES[:3], validation_data=IMAGES)
    second = model.get_layer("second")
    second.bias.assign([-1e6, -1e6, 0, 0, 0, 0])
    keep = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: before.append(np.concatenate([*map(np.ravel, second.weights)]))
    )
    model.fit(IMAGES, LABELS, epochs=2, callbacks=[keep, monitor], **QUIET)
    table = monitor.to_frame().set_index(["epoch", "layer"])
    filters, dead, spread, change = table.loc[2, "second"]
    maps = cnnviz.extract_activations(model, IMAGES, "second")["second"]
    assert (filters, dead) == (6, (np.ptp(maps, (0, 1, 2)) == 0).sum()) and dead >= 2
    assert spread == pytest.approx(np.sqrt(maps.var((0, 1, 2)).mean()), rel=1e-3)
    after = np.concatenate([*map(np.ravel, second.weights)])
    wanted = np.linalg.norm(after - before[1]) / np.linalg.norm(before[1])
    assert change == pytest.approx(wanted, rel=1e-3)
    maps = cnnviz.grad_cam(model, IMAGES[:3]).maps
    np.testing.assert_allclose(monitor.records[-1]["maps"], maps, atol=1e-6)
    n_dead = table.loc[2]["dead filters"].sum()
    assert f"Epoch 2: {n_dead} of 12 filters and units are dead." in str(monitor)


def test_live_filters_are_counted_behind_the_activation():
    model, monitor = build(), Monitor(IMAGES)
    model.layers[2].beta.assign([-100, 0, 0, 0])  # of the BatchNormalization before the ReLU
    model.fit(IMAGES, LABELS, callbacks=[monitor], **QUIET)
    assert monitor.records[0]["layers"]["first"][:2] == (4, 1)


BINARY = {"loss": "binary_crossentropy", "outputs": 1, "activation": "sigmoid"}
FAULTS = {
    "look too small": ({}, IMAGES / 255, LABELS),
    "are constant": ({}, np.zeros_like(IMAGES), LABELS),
    "40 `images` are all the same": ({}, np.repeat(IMAGES[:1], 40, 0), LABELS),
    "must be one-hot": ({"loss": "categorical_crossentropy"}, IMAGES, LABELS),
    r"\(40, 2\).* must be numbers in 0\.\.1": ({}, IMAGES, np.eye(2)[LABELS]),
    r"in 1\.\.2\) must be numbers in 0\.\.1": ({}, IMAGES, LABELS + 1),
    r"in 0\.\.3\) must be numbers in 0\.\.1": (BINARY, IMAGES, LABELS * 3),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_plain_fault_ends_the_training_before_its_first_step(sentence):
    options, images, labels = FAULTS[sentence]
    model = build(**options)
    before = model.get_weights()
    with pytest.raises(ValueError, match=sentence):
        model.fit(IMAGES, LABELS, callbacks=[Monitor(images, labels)], **QUIET)
    keras.tree.map_structure(np.testing.assert_array_equal, model.get_weights(), before)


def test_plain_fault_can_be_a_warning():
    monitor = Monitor(IMAGES / 255, stop_on_fault=False)
    with pytest.warns(UserWarning, match="look too small"):
        history = build().fit(IMAGES, LABELS, epochs=2, callbacks=[monitor], **QUIET)
    assert len(history.epoch) == len(monitor.records) == 2 and "too small" in monitor.notes[0]


def test_own_error_is_one_warning_and_the_training_goes_on(monkeypatch):
    monkeypatch.setattr(module, "grad_cam", None)  # which cannot be called
    with pytest.warns(UserWarning, match="stops watching") as caught:
        history = build().fit(IMAGES, LABELS, epochs=3, callbacks=[Monitor(IMAGES)], **QUIET)
    assert len(caught) == 1 and len(history.epoch) == 3


@pytest.mark.filterwarnings("ignore:no heat maps")
def test_weights_that_are_not_finite_are_told_with_their_layer():
    model, monitor = build(), Monitor(IMAGES[:4])
    head, broken = model.get_layer("head"), np.full(2, np.nan)
    spoil = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: head.bias.assign(broken) if epoch == 2 else None
    )
    with pytest.warns(UserWarning, match="weights of layer 'first' hold NaN"):
        history = model.fit(IMAGES, LABELS, epochs=5, callbacks=[monitor, spoil], **QUIET)
    assert len(monitor.notes) == 2 and len(history.epoch) == 5


def test_several_trainings_continue_and_traces_are_used_again():
    model, monitor = build(), Monitor(IMAGES[:4], LABELS[:4], every=2)
    options = QUIET | {"callbacks": [monitor]}
    model.fit(IMAGES, LABELS, epochs=3, **options)
    traces = len(_traces[model])
    model.fit(IMAGES, LABELS, epochs=3, **options)
    model.fit(IMAGES, LABELS, initial_epoch=11, epochs=12, **options)
    assert [record["epoch"] for record in monitor.records] == [2, 4, 6, 12]
    assert len(_traces[model]) == traces
    build().fit(IMAGES, LABELS, epochs=2, **options)
    assert [record["epoch"] for record in monitor.records] == [2]


def test_memory_is_bounded_and_the_folder_holds_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST_RECORDS", 4)
    model, monitor = build(), Monitor(IMAGES[:4], folder=tmp_path / "watched")
    model.fit(IMAGES, LABELS, epochs=18, callbacks=[monitor], **QUIET)
    epochs = [record["epoch"] for record in monitor.records]
    assert len(epochs) <= 4 and len({*np.diff(epochs)}) == 1 and epochs[-1] >= 14
    kept = pd.read_csv(tmp_path / "watched" / "monitor.csv")
    pd.testing.assert_frame_equal(kept, monitor.to_frame())
    with np.load(tmp_path / "watched" / "maps.npz") as maps:
        np.testing.assert_array_equal(maps[str(epochs[-1])], monitor.records[-1]["maps"])


class Branches(keras.Model):
    """A subclassed model that `fit` builds."""

    def __init__(self):
        super().__init__()
        self.convolutions = [keras.layers.Conv2D(4, 3, activation="relu") for _ in range(2)]
        self.end = keras.layers.Dense(2, activation="softmax")

    def call(self, images):
        maps = sum(convolution(images) for convolution in self.convolutions)
        return self.end(keras.ops.mean(maps, (1, 2)))


def two_outputs():
    image = keras.Input((12, 12, 3))
    pooled = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3)(image))
    heads = [keras.layers.Dense(2, activation="softmax", name=name)(pooled) for name in "ab"]
    return keras.Model(image, heads)


@pytest.mark.parametrize("build", [Branches, two_outputs])
@pytest.mark.parametrize("strategy", [None, tf.distribute.MirroredStrategy])
@pytest.mark.filterwarnings("ignore:no heat maps")
def test_models_of_other_kinds_and_devices(build, strategy):
    several = build is two_outputs
    data = tf.data.Dataset.from_tensors((IMAGES / 255, (LABELS,) * 2 if several else LABELS))
    watched, histories = Monitor(IMAGES[:4] / 255), []
    for callbacks in ([watched], []):
        keras.utils.set_random_seed(0)
        with strategy(["CPU:0"]).scope() if strategy else contextlib.nullcontext():
            model = build()
            model.compile("sgd", [SPARSE] * 2 if several else SPARSE, jit_compile=False)
        options = {"epochs": 2, "verbose": 0, "shuffle": False}
        histories.append(model.fit(data, callbacks=callbacks, **options).history)
    assert histories[0] == histories[1]
    assert [record["maps"] is None for record in watched.records] == [several] * 2
    assert all(row[0] and row[3] > 0 for row in watched.records[-1]["layers"].values())


def test_figure_shows_live_filters_and_maps():
    model, monitor = build(), Monitor(IMAGES[:2], LABELS[:2])
    with pytest.raises(ValueError, match="without a record"):
        monitor.plot()
    assert "No record yet" in str(monitor)
    model.fit(IMAGES, LABELS, epochs=3, callbacks=[monitor], **QUIET)
    figure = monitor.plot()
    live, first = figure.axes[0], monitor.records[0]["layers"]
    shares = live.images[0].get_array()
    wanted = [100 - 100 * row[1] / row[0] for row in first.values()]
    np.testing.assert_allclose(shares[:, 0], wanted)
    assert [tick.get_text() for tick in live.get_yticklabels()] == ["first", "second", "head"]
    assert sum(len(axis.images) for axis in figure.axes) == 1 + 2 * (1 + 3)
    assert "<img" in monitor._repr_html_()
