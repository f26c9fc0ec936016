"""The training loop on planted tasks: what it learns, keeps and survives; how pictures vary."""

import functools
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import training
from cnnviz.callbacks import BestWeights, EpochClock, Resume, read_history
from cnnviz.model import build_model
from cnnviz.optimizer import ConvolutionMuon, one_cycle
from cnnviz.recipe import ORTHOGONALIZING_STEPS, WEIGHT_DECAY
from cnnviz.training import train

BATCHES = 4


def brightness_task(labels_right=True, image_size=16, seed=0):
    """64 dark (0) and bright (1) pictures in 4 batches; with the labels turned round if asked."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], 32).astype(np.int32)
    noise = rng.normal(0, 15, (64, image_size, image_size, 3))
    images = np.clip(90 + 75 * labels[:, None, None, None] + noise, 0, 255).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices(
        (images, labels if labels_right else 1 - labels)
    ).batch(64 // BATCHES)


def brightness_model(weight=0.0):
    """A classifier of four numbers: the mean colour, weighted. Trains in no time."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights([np.full((3, 1), weight, np.float32), np.zeros(1, np.float32)])
    return model


RIGHT, TURNED_ROUND = brightness_task(), brightness_task(labels_right=False)
GREY = RIGHT.map(lambda images, labels: (images[..., :1], labels))


ASTRAY = {"learning_rate": 0.1, "augment": False, "verbose": 0}


def train_astray(model=None, *, epochs=6, **options):
    """A model that is right from the start learns from wrong labels: it gets worse each epoch."""
    model = brightness_model(weight=0.3) if model is None else model
    return model, train(model, TURNED_ROUND, RIGHT, epochs=epochs, **ASTRAY, **options)


def accuracy_of(model):
    """Counted here, on the pictures with the right labels."""
    right = [(model(images)[:, 0] > 0) == (labels == 1) for images, labels in RIGHT]
    return float(np.mean(right))


def load(path):
    return keras.saving.load_model(path, compile=False)


def assert_same_weights(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def at_epoch(monkeypatch):
    """at_epoch(n, do): call do(model) at the beginning of the epoch of index n; None for nothing"""

    def plant(index, do):
        def on_epoch_begin(history, epoch, logs=None):
            if epoch == index:
                do(history.model)

        monkeypatch.setattr(keras.callbacks.History, "on_epoch_begin", on_epoch_begin)

    return plant


class Killed(Exception):
    pass


def raise_killed(model):
    raise Killed


@pytest.fixture
def killed_after(at_epoch, tmp_path):
    """killed_after(n) -> the checkpoint of `train_astray`, killed when n whole epochs were done"""

    def kill(epochs):
        path = tmp_path / "best.keras"
        at_epoch(epochs, raise_killed)
        with pytest.raises(Killed):
            train_astray(checkpoint=path)
        at_epoch(None, None)
        return path

    return kill


def files_in(folder):
    """{file: its bytes}"""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# what it learns and returns


def test_learns_a_planted_task_with_the_whole_recipe(monkeypatch):
    monkeypatch.setattr("cnnviz.model.BLOCKS", ((2, 1), (2, 2)))  # two blocks of the four
    keras.utils.set_random_seed(0)
    model = build_model(image_size=16, width=2)
    history = train(
        model, brightness_task(seed=1), RIGHT, epochs=8, learning_rate=0.02, verbose=0
    ).history
    curves = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(history) == curves | {"image_size", "seconds"}
    assert all(len(values) == 8 for values in history.values())
    assert max(history["val_accuracy"]) > 0.9


@pytest.mark.case("training", "right")
def test_best_weights_are_left_in_the_model():
    model, history = train_astray()
    accuracies = history.history["val_accuracy"]
    assert accuracies[-1] < 0.1 < 0.9 < max(accuracies)
    assert accuracy_of(model) == max(accuracies)


def test_mixed_pictures_count_as_right_by_their_larger_part():
    options = {"epochs": 1, "learning_rate": 1e-9, "verbose": 0}
    mixed, plain = (
        train(brightness_model(weight=0.3), RIGHT, RIGHT, cut_mix=share, **options).history
        for share in (1.0, 0.0)
    )
    assert plain["accuracy"] == [1.0] and mixed["val_accuracy"] == [1.0]
    # It sums brightness up: only where both parts are nearly alike in size can lighting mislead it.
    assert 0.8 < mixed["accuracy"][0] < 1
    assert mixed["loss"][0] > plain["loss"][0]


def test_of_equally_right_epochs_the_one_with_the_lowest_loss_is_kept():
    options = {"learning_rate": 1e-3, "augment": False, "verbose": 0}
    model = brightness_model(weight=0.3)
    history = train(model, RIGHT, RIGHT, epochs=2, **options).history
    assert history["val_accuracy"] == [1.0, 1.0]
    losses = history["val_loss"]
    assert losses[0] != losses[1]
    kept = model.evaluate(RIGHT, verbose=0)[0]
    assert kept == pytest.approx(min(losses), rel=1e-6)


def test_steps_are_those_of_the_stated_optimizer_and_loss():
    model, twin = (build_model(width=2, precision="float32") for _ in range(2))
    twin.set_weights(model.get_weights())
    options = {"epochs": 2, "learning_rate": 0.01}
    history = train(model, RIGHT, RIGHT, **options, augment=False, verbose=0).history
    twin.compile(optimizer_as_stated(0.01, 2), _loss())
    expected = twin.fit(RIGHT, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)


def test_pictures_are_varied_as_far_as_was_asked(monkeypatch):
    asked = []

    def spy(data, clock, *, seed, strength, cut_mix=0.0):
        asked.append((strength, cut_mix))
        return data

    monkeypatch.setattr(training, "vary", spy)
    options = {"epochs": 1, "augment": 0.4, "cut_mix": 0.3, "image_sizes": (8,), "verbose": 0}
    train(brightness_model(), RIGHT, RIGHT, **options)
    assert asked == [(0.4, 0.3), (0, 0.0)]


def test_mixed_pictures_count_as_what_there_is_more_of():
    model = brightness_model()
    model.set_weights([np.zeros((3, 1), np.float32), np.full(1, -1, np.float32)])  # all cats
    train(model, RIGHT, RIGHT, epochs=1, learning_rate=0.0, cut_mix=1.0, verbose=0)
    labels = np.array([[0.0], [0.3], [0.51], [1.0]], np.float32)
    metrics = model.evaluate(np.zeros((4, 8, 8, 3)), labels, verbose=0, return_dict=True)
    assert metrics["accuracy"] == 0.5


def test_decay_is_of_kernels_alone():
    """Without a gradient all that changes a weight is its decay."""
    model = build_model(width=1, precision="float32")
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(tf.ones(variable.shape))
    training._optimizer(model, 0.1).apply([tf.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        expected = 1 - 0.1 * WEIGHT_DECAY if variable.name == "kernel" else 1
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


def test_the_best_of_the_largest_pictures_is_kept(tmp_path):
    """Epochs at other sizes do not count, however right they were."""
    clock = EpochClock((8, 16, 16, 8))
    best, model = BestWeights(clock), brightness_model()
    best.set_model(model)
    best.on_train_begin()
    for epoch, accuracy in enumerate((1.0, 0.6, 0.5, 0.9)):
        clock.on_epoch_begin(epoch)
        model.set_weights([np.full((3, 1), epoch, np.float32), np.zeros(1, np.float32)])
        best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": 0.5, "loss": 0.5})
    best.restore(model)
    assert (model.get_weights()[0] == 1).all()


def optimizer_as_stated(learning_rate, epochs):
    optimizer = ConvolutionMuon(
        one_cycle(learning_rate, epochs * BATCHES),
        weight_decay=0.02, adam_weight_decay=0.02, ns_steps=ORTHOGONALIZING_STEPS,
    )  # fmt: skip
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _loss():
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05)


@pytest.mark.case("training", "right")
def test_same_seed_same_weights_and_other_seed_others():
    models = [brightness_model() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        train(model, RIGHT, RIGHT, epochs=2, seed=seed, verbose=0)
    assert_same_weights(models[0], models[1])
    assert (models[0].get_weights()[0] != models[2].get_weights()[0]).any()


# what it survives


@pytest.mark.case("training", "flagged")
def test_interrupt_keeps_the_best_weights_and_the_history_so_far(at_epoch, capsys):
    def interrupt(model):
        raise KeyboardInterrupt

    at_epoch(4, interrupt)
    model, history = train_astray()
    accuracies = history.history["val_accuracy"]
    assert len(accuracies) == 4 and accuracies[-1] < max(accuracies)
    assert accuracy_of(model) == max(accuracies)
    shown = capsys.readouterr().out
    assert "Interrupted" in shown and "with a `checkpoint` it would go on" in shown


@pytest.mark.case("training", "right")
def test_interrupted_training_goes_on_when_called_again(at_epoch, tmp_path, capsys):
    def interrupt(model):
        raise KeyboardInterrupt

    options = {"epochs": 4, "checkpoint": tmp_path / "best.keras"}
    whole, _ = train_astray(epochs=4)
    at_epoch(2, interrupt)
    train_astray(**options)
    assert "Call `train` again to go on." in capsys.readouterr().out
    at_epoch(None, None)
    model, rest = train_astray(**options)
    assert rest.epoch == [2, 3] and len(rest.history["loss"]) == 4
    assert_same_weights(model, whole)


@pytest.mark.case("training", "right")
def test_interrupt_in_the_first_epoch_leaves_the_model_as_it_came(at_epoch):
    def interrupt(model):
        model.set_weights([weights + 1 for weights in model.get_weights()])
        raise KeyboardInterrupt

    at_epoch(0, interrupt)
    model, history = train_astray()
    assert history.history == {}
    assert_same_weights(model, brightness_model(weight=0.3))


@pytest.mark.case("training", "flagged")
def test_nan_stops_names_the_epoch_and_keeps_the_best_weights(at_epoch, tmp_path):
    at_epoch(2, lambda model: model.set_weights([w * np.nan for w in model.get_weights()]))
    with pytest.warns(UserWarning, match=r"epoch 3.*Lower the `learning_rate` \(=0.1\)"):
        model, history = train_astray(checkpoint=tmp_path / "best.keras")
    assert len(history.history["loss"]) == 3
    accuracy = accuracy_of(model)
    assert accuracy == max(history.history["val_accuracy"][:2])
    assert_same_weights(model, load(tmp_path / "best.keras"))


@pytest.mark.case("training", "flagged")
def test_nan_in_the_pictures_is_told_apart_from_a_learning_rate_too_high():
    images = np.full((16, 16, 16, 3), 90, np.float32)
    images[5, 3, 3, 0] = np.nan
    data = tf.data.Dataset.from_tensor_slices((images, np.tile([0, 1], 8))).batch(8)
    with pytest.warns(UserWarning, match="epoch 1.*`train_data` holds NaN"):
        model = brightness_model(weight=0.3)
        train(model, data, RIGHT, epochs=2, augment=False, verbose=0)
    assert_same_weights(model, brightness_model(weight=0.3))


@pytest.mark.parametrize("data", [TURNED_ROUND, TURNED_ROUND.take(1)], ids=["during", "last batch"])
@pytest.mark.case("training", "flagged")
def test_nan_in_the_first_epoch_leaves_the_model_as_it_came(data, tmp_path):
    model = brightness_model(weight=0.3)
    path = tmp_path / "best.keras"
    with pytest.warns(UserWarning, match="epoch 1"):
        train(model, data, RIGHT, epochs=1, learning_rate=float("inf"), checkpoint=path, verbose=0)
    assert_same_weights(model, brightness_model(weight=0.3))
    assert not path.exists()


@pytest.mark.case("training", "right")
def test_checkpoint_holds_the_best_weights(tmp_path):
    path = tmp_path / "new folder" / "best.keras"
    model, _ = train_astray(checkpoint=path)
    assert_same_weights(model, load(path))
    assert {file.name for file in path.parent.iterdir()} == {"best.keras", "best.keras.csv"}


@pytest.mark.case("training", "right")
def test_checkpoint_can_be_loaded_compiled_and_trained_on(tmp_path):
    path = tmp_path / "best.keras"
    train_astray(checkpoint=path)
    model = keras.saving.load_model(path)
    result = model.evaluate(RIGHT, return_dict=True, verbose=0)
    assert result["accuracy"] == accuracy_of(load(path))
    model.fit(RIGHT, shuffle=False, verbose=0)


@pytest.mark.case("training", "right")
def test_killed_training_continues_after_its_last_whole_epoch(killed_after):
    _, whole = train_astray()
    path = killed_after(3)
    model, rest = train_astray(checkpoint=path)
    assert rest.epoch == [3, 4, 5]
    assert rest.history.keys() == whole.history.keys()
    for name in rest.history.keys() - {"seconds"}:
        np.testing.assert_allclose(rest.history[name], whole.history[name], rtol=1e-5, err_msg=name)
    assert int(model.optimizer.iterations) == 6 * BATCHES


@pytest.mark.case("training", "right")
@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_killed_training_ends_in_the_weights_of_one_that_never_stopped(
    killed_in, at_epoch, monkeypatch, tmp_path
):
    """To the last bit, with varied pictures in an order of its own in each epoch."""
    path = tmp_path / "best.keras"
    last = []
    monkeypatch.setattr(
        Resume,
        "on_train_end",
        lambda callback, logs=None: last.append(callback.model.get_weights()),
    )

    def run(checkpoint):
        data = RIGHT.shuffle(BATCHES, seed=3)  # anew, as in another process
        model = brightness_model()
        history = train(
            model, data, RIGHT, epochs=5, learning_rate=0.05, checkpoint=checkpoint, verbose=0
        )
        return model, history

    model, history = run(tmp_path / "whole.keras")
    at_epoch(killed_in, raise_killed)
    with pytest.raises(Killed):
        run(path)
    at_epoch(None, None)
    again, rest = run(path)
    assert rest.epoch == list(range(killed_in, 5))
    np.testing.assert_allclose(rest.history["loss"], history.history["loss"], rtol=1e-5)
    assert_same_weights(again, model)
    for one, other in zip(*last, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.case("training", "reported")
def test_the_state_of_another_model_is_an_error_that_says_what_to_do(killed_after, tmp_path):
    path = killed_after(2)
    before = files_in(tmp_path)
    message = r"`checkpoint` \(='.*best.keras'\) .* another model.*best.keras.resume"
    with pytest.raises(ValueError, match=message):
        model = small_network()
        train(model, RIGHT, RIGHT, epochs=6, checkpoint=path, **ASTRAY)
    assert_same_weights(model, small_network())
    assert files_in(tmp_path) == before


@pytest.mark.case("training", "reported")
@pytest.mark.parametrize("options", [{"epochs": 2}, {"epochs": 6, "image_sizes": [16] * 6}])
def test_the_state_of_other_epochs_is_an_error_and_is_kept(options, killed_after, tmp_path):
    path = killed_after(4)
    before = files_in(tmp_path)
    message = r"`checkpoint` \(='.*best.keras'\) .* first 4 epochs .*best.keras.resume"
    with pytest.raises(ValueError, match=message):
        train_astray(checkpoint=path, **options)
    assert files_in(tmp_path) == before


@pytest.mark.case("training", "reported")
@pytest.mark.parametrize(
    "options",
    [{"seed": 3}, {"learning_rate": 0.02}, {"augment": 0.5}, {"augment": 0.5, "cut_mix": 1}],
)
def test_a_training_goes_on_only_as_it_began(options, killed_after, tmp_path):
    path = killed_after(2)
    before = files_in(tmp_path)
    message = (
        rf"`{next(iter(options))}` .* with which the unfinished training in .*best.keras.resume"
    )
    with pytest.raises(ValueError, match=message):
        train(brightness_model(), RIGHT, RIGHT, epochs=6, checkpoint=path, **ASTRAY | options)
    assert files_in(tmp_path) == before


@pytest.mark.case("training", "right")
def test_history_is_read_as_it_was_written(tmp_path):
    """To the last digit, or an epoch that is as good as the best before a kill is not told so."""
    _, history = train_astray(checkpoint=tmp_path / "best.keras")
    assert read_history(tmp_path / "best.keras.csv") == {
        name: [float(value) for value in values] for name, values in history.history.items()
    }


@pytest.mark.case("training", "right")
def test_each_training_before_keeps_its_checkpoint_and_its_history(at_epoch, tmp_path):
    path = tmp_path / "best.keras"
    train_astray(checkpoint=path)
    best, curves = path.read_bytes(), path.with_name("best.keras.csv").read_bytes()
    for _ in range(2):  # others that are stopped, and whose state a person deletes
        at_epoch(1, raise_killed)
        with pytest.raises(Killed):
            train_astray(brightness_model(weight=-0.3), checkpoint=path)
        shutil.rmtree(tmp_path / "best.keras.resume")
    at_epoch(None, None)
    train_astray(brightness_model(weight=-0.3), checkpoint=path)
    assert (tmp_path / "best.earlier.keras").read_bytes() == best
    assert (tmp_path / "best.earlier.keras.csv").read_bytes() == curves
    assert (tmp_path / "best.earlier2.keras").exists()


@pytest.mark.case("training", "right")
@pytest.mark.parametrize("batch_size", [8, 64])
def test_going_on_with_other_batches_the_learning_rate_still_falls_to_zero_at_the_end(
    batch_size, at_epoch, killed_after
):
    path = killed_after(4)
    pictures = RIGHT.unbatch().apply(tf.data.experimental.assert_cardinality(64))
    data = pictures.batch(batch_size)
    rates = []
    at_epoch(5, lambda model: rates.append(float(model.optimizer.learning_rate)))
    model = brightness_model()
    train(model, data, RIGHT, epochs=6, checkpoint=path, **ASTRAY)
    assert int(model.optimizer.iterations) == 6 * len(data)
    whole = one_cycle(ASTRAY["learning_rate"], 6 * len(data))
    assert rates == [pytest.approx(float(whole(5 * len(data))))] and rates[0] > 0


@pytest.mark.case("training", "right")
def test_worse_weights_do_not_replace_better_ones_after_a_kill(at_epoch, tmp_path):
    path = tmp_path / "best.keras"
    at_epoch(3, raise_killed)
    killed = brightness_model(weight=0.3)
    with pytest.raises(Killed):
        train_astray(killed, checkpoint=path)
    best = load(path)
    assert accuracy_of(best) > 0.9
    at_epoch(None, None)
    model, rest = train_astray(checkpoint=path)
    assert max(rest.history["val_accuracy"][3:]) < 0.9
    assert_same_weights(load(path), best)
    assert_same_weights(model, best)


@pytest.mark.case("training", "right")
def test_training_killed_after_its_last_epoch_still_gives_the_best_weights(monkeypatch, tmp_path):
    path = tmp_path / "best.keras"
    with monkeypatch.context() as patch:
        patch.setattr(Resume, "on_train_end", lambda callback, logs=None: raise_killed(None))
        with pytest.raises(Killed):
            train_astray(checkpoint=path)
    model, rest = train_astray(checkpoint=path)
    assert rest.epoch == [] and len(rest.history["val_loss"]) == 6
    assert_same_weights(model, load(path))


@pytest.mark.case("training", "right")
def test_after_a_continued_training_the_next_one_has_all_its_epochs(killed_after):
    model, _ = train_astray(checkpoint=killed_after(3))
    _, second_stage = train_astray(model, epochs=2)
    assert second_stage.epoch == [0, 1]


@pytest.mark.case("training", "right")
def test_finished_training_starts_anew_with_the_same_checkpoint(tmp_path):
    path = tmp_path / "best.keras"
    train_astray(checkpoint=path)
    model, again = train_astray(brightness_model(weight=0.5), checkpoint=path)
    assert again.epoch == list(range(6))
    assert_same_weights(model, load(path))


@pytest.mark.case("training", "right")
@pytest.mark.parametrize("killed_in", [None, 0, 1])
def test_a_training_that_starts_anew_keeps_the_checkpoint_of_the_one_before(
    killed_in, at_epoch, tmp_path
):
    """Though it is worse, and killed, and goes on."""
    path = tmp_path / "best.keras"
    train_astray(checkpoint=path)
    before = path.read_bytes()
    if killed_in is not None:
        at_epoch(killed_in, raise_killed)
        with pytest.raises(Killed):
            train_astray(brightness_model(weight=-0.3), checkpoint=path)
        at_epoch(None, None)
    train_astray(brightness_model(weight=-0.3), checkpoint=path)
    assert accuracy_of(load(path)) < 0.9 < accuracy_of(load(tmp_path / "best.earlier.keras"))
    assert (tmp_path / "best.earlier.keras").read_bytes() == before


@pytest.mark.case("training", "right")
def test_training_killed_in_its_first_epoch_starts_anew(killed_after):
    assert train_astray(checkpoint=killed_after(0))[1].epoch == list(range(6))


# what varies with the epoch, and what is written


def pixel_counting_model():
    """Its logit is the number of pixels: from what it sees, the image size can be told."""
    images = keras.Input((None, None, 3))
    ones = keras.layers.Rescaling(0.0, offset=1.0)(images)
    area = keras.ops.sum(ones, axis=(1, 2))[:, :1]
    logit = keras.layers.Dense(1, kernel_initializer="ones")(area)
    return keras.Model(images, logit)


def test_each_epoch_trains_and_validates_at_its_image_size():
    history = train(
        pixel_counting_model(), RIGHT, RIGHT,
        epochs=3, image_sizes=(4, 6, 9), learning_rate=1e-9, verbose=0,
    ).history  # fmt: skip
    assert history["image_size"] == [4, 6, 9]
    # The logit is 16, 36, 81 for all pictures, half of which are dogs: the loss is half of it and
    # nearly nothing for the dogs, with the smoothed labels a little less.
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history[name], np.array([16, 36, 81]) / 2, rtol=0.06)


def test_history_is_kept_in_a_file(tmp_path):
    path = tmp_path / "best.keras"
    _, history = train_astray(checkpoint=path)
    written = read_history(f"{path}.csv")
    assert written.keys() == history.history.keys()
    for name, values in history.history.items():
        np.testing.assert_allclose(written[name], values, rtol=1e-5)


@pytest.mark.case("training", "right")
def test_killed_training_varies_its_pictures_as_one_that_never_stopped(at_epoch, tmp_path):
    options = {"epochs": 4, "learning_rate": 0.1, "verbose": 0}
    whole = train(brightness_model(), RIGHT, RIGHT, **options).history["loss"]
    at_epoch(2, raise_killed)
    options["checkpoint"] = tmp_path / "best.keras"
    with pytest.raises(Killed):
        train(brightness_model(), RIGHT, RIGHT, **options)
    at_epoch(None, None)
    both = train(brightness_model(), RIGHT, RIGHT, **options).history["loss"]
    np.testing.assert_allclose(both, whole, rtol=1e-5)
    other = train(brightness_model(), RIGHT, RIGHT, seed=1, **options).history["loss"]
    assert np.abs(np.subtract(other, whole)).min() > 1e-4  # so it would show


@pytest.mark.parametrize("function", ["os.replace", "numpy.savetxt", "keras.Model.save_weights"])
@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.case("training", "right")
def test_training_killed_while_it_writes_goes_on(function, call, monkeypatch, tmp_path):
    """Half of the file is written when the process dies, at this and that call of an epoch."""
    path = tmp_path / "best.keras"
    _, whole = train_astray(epochs=3)
    written = _function(function)
    calls = iter(range(100))

    def write_half_and_die(*args, **kwargs):
        if next(calls) != call:
            return written(*args, **kwargs)
        if function != "os.replace":
            target = Path(args[0] if function == "numpy.savetxt" else args[1])
            target.write_bytes(b"half a file")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(function, write_half_and_die)
        with pytest.raises(Killed):
            train_astray(epochs=3, checkpoint=path)
    model, rest = train_astray(epochs=3, checkpoint=path)
    assert rest.history.keys() == whole.history.keys()
    for name in rest.history.keys() - {"seconds"}:
        np.testing.assert_allclose(rest.history[name], whole.history[name], rtol=1e-5)
    assert int(model.optimizer.iterations) == 3 * BATCHES
    assert_same_weights(model, load(path))
    assert accuracy_of(model) == max(whole.history["val_accuracy"])


def _function(dotted):
    module, *names = dotted.split(".")
    return functools.reduce(getattr, names, sys.modules[module])


def test_curves_draw_themselves_in_a_notebook_alone(monkeypatch):
    shown = []

    class Place:
        def update(self, figure):
            shown.append(figure)

    monkeypatch.setattr("IPython.display.display", lambda empty, display_id: Place())
    options = {"epochs": 3, "augment": False}
    train(brightness_model(), RIGHT, RIGHT, verbose=2, **options)
    assert shown == []
    monkeypatch.setattr("cnnviz.training.in_notebook", lambda: True)
    train(brightness_model(), RIGHT, RIGHT, verbose=0, **options)
    assert shown == []
    train(brightness_model(), RIGHT, RIGHT, verbose=2, **options)
    points = [len(figure.axes[0].lines[0].get_xdata()) for figure in shown]
    assert points == [1, 2, 3]


# where it runs


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.case("training", "right")
def test_pictures_of_other_types_train_as_float32_does(dtype):
    def histories(data):
        return train(
            brightness_model(), data, data, epochs=2, image_sizes=(8, 12), verbose=0
        ).history["loss"]

    whole = RIGHT.map(lambda images, labels: (tf.round(images), labels))
    other = whole.map(lambda images, labels: (tf.cast(images, dtype), labels))
    np.testing.assert_allclose(histories(other), histories(whole), rtol=1e-5)


@pytest.mark.parametrize(
    "first_layer, flags, worth, compiled",
    [
        ("Rescaling", "avx2", 1, True),
        ("Rescaling", "avx2", 1000, False),
        ("RandomRotation", "avx2", 1, False),
        ("Rescaling", "avx512f", 1, False),
    ],
)
def test_compiled_where_it_can_be_and_the_processor_gains_in_so_many_steps(
    first_layer, flags, worth, compiled, monkeypatch, tmp_path
):
    (tmp_path / "cpuinfo").write_text(f"flags : sse {flags}_vnni {flags}")
    monkeypatch.setattr("cnnviz.model.CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(training, "STEPS_WORTH_COMPILING", worth)
    inner = keras.Sequential([keras.Input((16, 16, 3)), getattr(keras.layers, first_layer)(0.1)])
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((16, 16, 3)), inner, *head])
    train(model, RIGHT, RIGHT, epochs=1, verbose=0)
    assert model.jit_compile is compiled


@pytest.mark.parametrize("policy, scaled", [("mixed_float16", True), ("float32", False)])
def test_loss_is_scaled_where_gradients_are_float16(policy, scaled):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.GlobalAveragePooling2D(dtype=policy),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    history = train(model, RIGHT, RIGHT, epochs=1, augment=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == scaled


# Virtual devices cannot be added to a process that has used TensorFlow.
TWO_DEVICES = """
import contextlib, json
import keras, tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from test_training import RIGHT, small_network
from cnnviz.training import train

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
histories = []
for scope in (contextlib.nullcontext(), strategy.scope()):
    with scope:
        model = small_network()
    histories.append(train(model, RIGHT, RIGHT, epochs=4, learning_rate=0.02, verbose=0).history)
print(json.dumps(histories))
"""


def small_network():
    """A convolution, for Muon, and no batch normalisation, which would be of half a batch."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )


def test_two_devices_train_as_one_does(tmp_path):
    script = tmp_path / "both.py"
    script.write_text(TWO_DEVICES)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)


# Kept memory is a matter of the whole process, and of threads that begin after the import.
USE_MEMORY = """
import concurrent.futures, ctypes, resource
from cnnviz import memory

memory.keep_freed()
libc, size = ctypes.CDLL(None), 200 * 2**20
libc.malloc.restype = ctypes.c_void_p

def use():
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)

for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(use).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_are_kept_for_the_next_step_whatever_thread_takes_it():
    done = subprocess.run(
        [sys.executable, "-c", USE_MEMORY], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *later = map(int, done.stdout.split())
    assert first > 10 * max(later), (first, later)  # pages that the system had to give


TRAIN_AND_PRINT = """
import hashlib, sys
import numpy as np
from test_training import BATCHES, RIGHT, small_network
from cnnviz.training import train

model, data = small_network(), RIGHT.shuffle(BATCHES, seed=3)
print("begun", flush=True)
options = {"learning_rate": 0.02, "seed": 5, "verbose": 0}
history = train(model, data, RIGHT, epochs=12, checkpoint=sys.argv[1], **options)
weights = b"".join(array.tobytes() for array in model.get_weights())
print(hashlib.sha256(weights).hexdigest(), len(history.history["loss"]))
"""


@pytest.mark.slow
@pytest.mark.case("training", "right")
@pytest.mark.parametrize("seed", range(4))
def test_killed_processes_end_in_the_weights_of_one_left_alone(seed, whole_process, tmp_path):
    """SIGKILL at up to three random moments, between which it is started again."""
    rng, seconds = np.random.default_rng(seed), whole_process[1]
    for _ in range(3):
        process = start_training(tmp_path / "best.keras")
        process.stdout.readline()
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.communicate()
    process = start_training(tmp_path / "best.keras")
    shown, _ = process.communicate(timeout=300)
    assert shown.splitlines()[-1] == whole_process[0]


@pytest.mark.slow
@pytest.mark.case("training", "right")
def test_two_processes_of_one_seed_end_in_the_same_weights(whole_process, tmp_path):
    shown, _ = start_training(tmp_path / "other.keras").communicate(timeout=300)
    assert shown.splitlines()[-1] == whole_process[0]


@pytest.fixture(scope="module")
def whole_process(tmp_path_factory):
    """(what a process that is left alone prints, the seconds it trains)."""
    process = start_training(tmp_path_factory.mktemp("whole") / "best.keras")
    assert process.stdout.readline() == "begun\n"
    begun = time.perf_counter()
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and shown.split()[1] == "12"
    return shown.strip(), time.perf_counter() - begun


def start_training(checkpoint):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", TRAIN_AND_PRINT, str(checkpoint)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def test_the_model_goes_when_nobody_uses_it_any_more():
    """TensorFlow never lets go of what varies the pictures, nor of what that holds."""
    model = brightness_model()
    train(model, RIGHT, RIGHT, epochs=1, image_sizes=(8,), verbose=0)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_passes_end_without_waiting_for_tuning(monkeypatch):
    """`data.untuned` tells why; also for datasets that a person made."""
    fit, seen = keras.Model.fit, []

    def recorded_fit(model, data, *, validation_data, **options):
        seen.extend((data, validation_data))
        return fit(model, data, validation_data=validation_data, **options)

    monkeypatch.setattr(keras.Model, "fit", recorded_fit)
    train(brightness_model(), RIGHT, RIGHT, epochs=1, verbose=0)
    assert [data.options().autotune.enabled for data in seen] == [False, False]


# what it refuses


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, r"`epochs` \(=0\)"),
        ({"image_sizes": (8, 8)}, r"`image_sizes` \(=\(8, 8\)\) .* 1 `epochs`, not 2"),
        ({"image_sizes": (0,)}, r"`image_sizes` \(=0\) must be an integer, 1 or more"),
        ({"image_sizes": (8.5,)}, r"`image_sizes` \(=8.5\) must be an integer, 1 or more"),
        ({"augment": -0.1}, r"`augment` \(=-0.1\) must be True, False or a number in 0..2"),
        ({"augment": 2.5}, r"`augment` \(=2.5\)"),
        ({"augment": np.nan}, r"`augment` \(=nan\)"),
        ({"augment": "mild"}, r"`augment` \(='mild'\)"),
        ({"cut_mix": 1.5}, r"`cut_mix` \(=1.5\) must be a number in 0..1"),
        ({"cut_mix": "x"}, r"`cut_mix` \(='x'\)"),
        ({"cut_mix": np.nan}, r"`cut_mix` \(=nan\)"),
        ({"cut_mix": 0.5, "augment": False}, r"`cut_mix` \(=0.5\) needs `augment`"),
        ({"image_sizes": 64}, r"`image_sizes` \(=64\) must be a sequence"),
        ({"seed": -1}, r"`seed` \(=-1\) must be an integer, 0 or more"),
        ({"train_data": GREY}, r"`train_data` \(images of shape .*must be \(B, H, W, 3\)"),
        ({"train_data": RIGHT.unbatch()}, r"`train_data` .* pairs: images \(B, H, W, 3\)"),
        ({"train_data": RIGHT.map(lambda x, y: (x, y, y))}, "`train_data` .* must give pairs"),
        ({"validation_data": RIGHT.map(lambda x, y: x)}, "`validation_data` .* must give pairs"),
        ({"train_data": RIGHT.map(lambda x, y: (x, y + 1))}, r"`train_data` .*labels .* in 0..1"),
        ({"train_data": RIGHT.map(lambda x, y: (x, 2 * y - 1))}, "`train_data` .*labels"),
        ({"train_data": RIGHT.map(lambda x, y: (x, tf.one_hot(y, 2)))}, r"of shape \(.*, 2\)"),
        ({"validation_data": RIGHT.map(lambda x, y: (x, y + 1))}, "`validation_data` .*labels"),
        ({"train_data": RIGHT.repeat()}, "`train_data` .*infinite"),
        ({"train_data": RIGHT.filter(lambda *_: True)}, "`train_data` .*unknown length"),
        ({"train_data": RIGHT.take(0)}, "`train_data` .*empty"),
        ({"validation_data": RIGHT.repeat()}, "`validation_data` .*infinite"),
        ({"validation_data": RIGHT.take(0)}, "`validation_data` .*empty"),
        ({"checkpoint": "best.h5"}, r"`checkpoint` \(='best.h5'\).*\.keras"),
    ],
)
@pytest.mark.case("training", "reported")
def test_what_cannot_be_trained_is_an_error_by_its_name(change, message):
    options = {"train_data": RIGHT, "validation_data": RIGHT, "epochs": 1} | change
    with pytest.raises(ValueError, match=message):
        train(brightness_model(), **options)


@pytest.mark.parametrize(
    "head",
    [
        keras.layers.Dense(1, "sigmoid"),
        keras.layers.Dense(2),
        keras.layers.Dense(1, "relu"),
        keras.Sequential([keras.layers.Dense(1), keras.layers.Activation("sigmoid")]),
    ],
)
@pytest.mark.case("training", "reported")
def test_a_model_without_one_logit_is_refused(head):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, head(keras.layers.GlobalAveragePooling2D()(images)))
    data = tf.data.Dataset.from_tensors((np.zeros((1, 16, 16, 3)), [0]))
    with pytest.raises(ValueError, match="must return one logit"):
        train(model, data, data, epochs=1)


@pytest.mark.case("training", "right")
def test_a_subclassed_model_is_trained():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = brightness_model()

        def call(self, images, training=None):
            return self.inner(images, training=training)

    model = Subclassed()
    model(np.zeros((1, 16, 16, 3)))
    train(model, RIGHT, RIGHT, epochs=5, learning_rate=0.1, augment=False, verbose=0)
    assert accuracy_of(model) == 1


@pytest.mark.case("training", "reported")
@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0), (2 / 255, -1), (1, -124), (257, 0)])
def test_pictures_that_were_rescaled_are_not_varied(scale, offset):
    rescaled = RIGHT.map(lambda images, labels: (images * scale + offset, labels))
    message = r"`train_data` \(in [-\d.e+]+\) must be pictures in 0..255"
    with pytest.raises(Exception, match=message):
        train(brightness_model(), rescaled, rescaled, epochs=1, verbose=0)
    train(brightness_model(), rescaled, rescaled, epochs=1, augment=False, verbose=0)


@pytest.mark.case("training", "reported")
def test_arrays_in_place_of_a_dataset_are_refused():
    model, arrays = build_model(width=2), (np.zeros((1, 16, 16, 3)), [0])
    with pytest.raises(ValueError, match="`train_data` .* must be a tf.data.Dataset"):
        train(model, arrays, arrays, epochs=1)
