"""The training loop on planted tasks: what it learns, keeps and survives; how pictures vary."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.model import build_model
from cnnviz.training import CUT_OUT, LIGHTING, _augmented, augment_batch, one_cycle, train

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


def train_astray(model=None, *, epochs=6, **options):
    """A model that is right from the start learns from wrong labels: it gets worse each epoch."""
    model = brightness_model(weight=0.3) if model is None else model
    history = train(
        model, TURNED_ROUND, RIGHT,
        epochs=epochs, learning_rate=0.1, augment=False, verbose=0, **options,
    )  # fmt: skip
    return model, history


@pytest.fixture(autouse=True)
def no_xla(monkeypatch):
    """Compiling would take longer than these short trainings."""
    compile_without = functools.partialmethod(keras.Model.compile, jit_compile=False)
    monkeypatch.setattr(keras.Model, "compile", compile_without)


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


# what it learns and returns


def test_learns_a_planted_task_with_the_whole_recipe(monkeypatch):
    monkeypatch.setattr("cnnviz.model.CONVOLUTIONS", (2, 2))  # two blocks of the four
    keras.utils.set_random_seed(0)
    model = build_model(image_size=16, width=2)
    history = train(
        model, brightness_task(seed=1), RIGHT, epochs=8, learning_rate=0.02, verbose=0
    ).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 8 for values in history.values())
    assert max(history["val_accuracy"]) > 0.9


def test_best_weights_are_left_in_the_model():
    model, history = train_astray()
    accuracies = history.history["val_accuracy"]
    assert accuracies[-1] < 0.1 < 0.9 < max(accuracies)
    assert accuracy_of(model) == max(accuracies)


def test_first_of_equally_good_epochs_is_kept():
    model, again = brightness_model(weight=0.3), brightness_model(weight=0.3)
    options = {"learning_rate": 1e-3, "augment": False, "verbose": 0}
    accuracies = train(model, RIGHT, RIGHT, epochs=2, **options).history["val_accuracy"]
    assert accuracies == [1.0, 1.0]
    steps = one_cycle(1e-3, 2 * BATCHES)
    again.compile(keras.optimizers.AdamW(steps, weight_decay=0.02), _loss())
    again.fit(RIGHT, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def _loss():
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05)


def test_same_seed_same_weights_and_other_seed_others():
    models = [brightness_model() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        train(model, RIGHT, RIGHT, epochs=2, seed=seed, verbose=0)
    assert_same_weights(models[0], models[1])
    assert (models[0].get_weights()[0] != models[2].get_weights()[0]).any()


# what it survives


def test_interrupt_keeps_the_best_weights_and_the_history_so_far(at_epoch, capsys):
    def interrupt(model):
        raise KeyboardInterrupt

    at_epoch(4, interrupt)
    model, history = train_astray()
    accuracies = history.history["val_accuracy"]
    assert len(accuracies) == 4 and accuracies[-1] < max(accuracies)
    assert accuracy_of(model) == max(accuracies)
    assert "Interrupted" in capsys.readouterr().out


def test_interrupt_in_the_first_epoch_leaves_the_model_as_it_came(at_epoch):
    def interrupt(model):
        model.set_weights([weights + 1 for weights in model.get_weights()])
        raise KeyboardInterrupt

    at_epoch(0, interrupt)
    model, history = train_astray()
    assert history.history == {}
    assert_same_weights(model, brightness_model(weight=0.3))


def test_nan_stops_names_the_epoch_and_keeps_the_best_weights(at_epoch, tmp_path):
    at_epoch(2, lambda model: model.set_weights([w * np.nan for w in model.get_weights()]))
    with pytest.warns(UserWarning, match=r"epoch 3.*Lower the `learning_rate` \(=0.1\)"):
        model, history = train_astray(checkpoint=tmp_path / "best.keras")
    assert len(history.history["loss"]) == 3
    accuracy = accuracy_of(model)
    assert accuracy == max(history.history["val_accuracy"][:2])
    assert_same_weights(model, load(tmp_path / "best.keras"))


@pytest.mark.parametrize("data", [TURNED_ROUND, TURNED_ROUND.take(1)], ids=["during", "last batch"])
def test_nan_in_the_first_epoch_leaves_the_model_as_it_came(data, tmp_path):
    model = brightness_model(weight=0.3)
    path = tmp_path / "best.keras"
    with pytest.warns(UserWarning, match="epoch 1"):
        train(model, data, RIGHT, epochs=1, learning_rate=float("inf"), checkpoint=path, verbose=0)
    assert_same_weights(model, brightness_model(weight=0.3))
    assert not path.exists()


def test_checkpoint_holds_the_best_weights(tmp_path):
    path = tmp_path / "new folder" / "best.keras"
    model, _ = train_astray(checkpoint=path)
    assert_same_weights(model, load(path))
    assert [file.name for file in path.parent.iterdir()] == ["best.keras"]


def test_killed_training_continues_after_its_last_whole_epoch(at_epoch, tmp_path):
    path = tmp_path / "best.keras"
    _, whole = train_astray()
    at_epoch(3, raise_killed)
    with pytest.raises(Killed):
        train_astray(checkpoint=path)
    at_epoch(None, None)
    model, rest = train_astray(checkpoint=path)
    assert rest.epoch == [3, 4, 5]
    for name, values in whole.history.items():
        np.testing.assert_allclose(rest.history[name], values[3:], rtol=1e-5, err_msg=name)
    assert int(model.optimizer.iterations) == 6 * BATCHES


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
    assert max(rest.history["val_accuracy"]) < 0.9
    assert_same_weights(load(path), best)
    assert_same_weights(model, best)


def test_training_killed_after_its_last_epoch_still_gives_the_best_weights(monkeypatch, tmp_path):
    path = tmp_path / "best.keras"
    backup = keras.callbacks.BackupAndRestore
    with monkeypatch.context() as patch:
        patch.setattr(backup, "on_train_end", lambda callback, logs=None: raise_killed(None))
        with pytest.raises(Killed):
            train_astray(checkpoint=path)
    model, rest = train_astray(checkpoint=path)
    assert rest.history == {}
    assert_same_weights(model, load(path))


def test_after_a_continued_training_the_next_one_has_all_its_epochs(at_epoch, tmp_path):
    at_epoch(3, raise_killed)
    with pytest.raises(Killed):
        train_astray(checkpoint=tmp_path / "best.keras")
    at_epoch(None, None)
    model, _ = train_astray(checkpoint=tmp_path / "best.keras")
    _, second_stage = train_astray(model, epochs=2)
    assert second_stage.epoch == [0, 1]


def test_finished_training_starts_anew_with_the_same_checkpoint(tmp_path):
    path = tmp_path / "best.keras"
    train_astray(checkpoint=path)
    model, again = train_astray(brightness_model(weight=0.5), checkpoint=path)
    assert again.epoch == list(range(6))
    assert_same_weights(model, load(path))


def test_training_killed_in_its_first_epoch_starts_anew(at_epoch, tmp_path):
    at_epoch(0, raise_killed)
    with pytest.raises(Killed):
        train_astray(checkpoint=tmp_path / "best.keras")
    at_epoch(None, None)
    assert train_astray(checkpoint=tmp_path / "best.keras")[1].epoch == list(range(6))


# what it refuses


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, r"`epochs` \(=0\)"),
        ({"train_data": RIGHT.repeat()}, "`train_data` .*infinite"),
        ({"train_data": RIGHT.filter(lambda *_: True)}, "`train_data` .*unknown length"),
        ({"train_data": RIGHT.take(0)}, "`train_data` .*empty"),
        ({"validation_data": RIGHT.repeat()}, "`validation_data` .*infinite"),
        ({"validation_data": RIGHT.take(0)}, "`validation_data` .*empty"),
        ({"checkpoint": "best.h5"}, r"`checkpoint` \(='best.h5'\).*\.keras"),
    ],
)
def test_what_cannot_be_trained_is_an_error_by_its_name(change, message):
    options = {"train_data": RIGHT, "validation_data": RIGHT, "epochs": 1} | change
    with pytest.raises(ValueError, match=message):
        train(brightness_model(), **options)


# one_cycle


@pytest.mark.parametrize("steps", [5, 10, 100])
def test_one_cycle_rises_from_a_tenth_to_the_peak_and_falls_to_zero(steps):
    schedule = one_cycle(0.02, steps)
    rates = np.array([float(schedule(step)) for step in range(steps + 1)])
    assert rates[0] == pytest.approx(0.002) and rates.max() == pytest.approx(0.02)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
    peak = rates.argmax()
    assert peak == steps // 5
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_few_steps_is_finite(steps):
    rates = [float(one_cycle(0.02, steps)(step)) for step in range(steps)]
    assert all(0 < rate <= 0.021 for rate in rates)


# augment_batch


def augmented(images, seed=(0, 0)):
    return augment_batch(tf.constant(images, tf.float32), tf.constant(seed, tf.int64)).numpy()


def ramps(count, size=24):
    """Pictures that brighten from left to right, within what lighting cannot push out of range."""
    return np.broadcast_to(np.linspace(64, 192, size)[:, None], (count, size, size, 3))


def unhidden(image):
    """The rows and columns of a picture that the painted square does not touch."""
    hidden = (image == 128).all(axis=-1)
    return image[~hidden.any(axis=1)][:, ~hidden.any(axis=0)]


@pytest.mark.parametrize("shape", [(5, 20, 24, 3), (1, 16, 16, 3)])
def test_augmented_pictures_keep_shape_type_and_range(shape):
    images = np.random.default_rng(0).choice([0.0, 255.0], shape)
    for seed in range(5):
        result = augmented(images, (seed, 1))
        assert result.shape == shape and result.dtype == np.float32
        assert 0 <= result.min() and result.max() <= 255


def test_each_picture_of_a_batch_is_varied_in_its_own_way():
    results = augmented(ramps(8))
    for one, other in itertools.combinations(results, 2):
        assert np.abs(one - other).mean() > 0.5


def test_same_seed_same_variation_and_other_seed_another():
    np.testing.assert_array_equal(augmented(ramps(4), (1, 2)), augmented(ramps(4), (1, 2)))
    assert np.abs(augmented(ramps(4), (1, 2)) - augmented(ramps(4), (1, 3))).mean() > 1


def test_middle_grey_changes_by_its_brightness_alone():
    for image in augmented(np.full((32, 16, 16, 3), 128.0)):
        light = image[image != 128]
        np.testing.assert_allclose(light, light[0], rtol=1e-6)
        assert abs(light[0] - 128) <= 128 * LIGHTING + 1e-3


def test_half_of_the_pictures_are_mirrored():
    falls = [
        unhidden(image)[0, 0, 0] > unhidden(image)[0, -1, 0] for image in augmented(ramps(400))
    ]
    assert 0.4 < np.mean(falls) < 0.6


def test_crop_keeps_neighbours_neighbours():
    for image in augmented(ramps(64)):
        for rows in (image, image[::-1]):  # the square leaves the first or the last row whole
            row = rows[0, :, 0]
            if (row != 128).all():
                steps = np.diff(row)
                assert (steps >= -1e-3).all() or (steps <= 1e-3).all()
                assert 128 * 0.6 * (1 - LIGHTING) < np.abs(steps).sum() < 128 * (1 + LIGHTING)


def test_crop_differs_from_picture_to_picture_in_place():
    lefts = [unhidden(image)[0, :, 0].mean() for image in augmented(ramps(32))]
    assert np.std(lefts) > 3


def test_hidden_square_has_the_stated_size_and_moves():
    images = augmented(np.full((64, 40, 40, 3), 30.0))
    hidden = (images == 128).all(axis=-1)
    heights, widths = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(hidden.sum(axis=(1, 2)), heights * widths)  # full rectangles
    assert heights.max() == widths.max() == 40 * CUT_OUT
    assert hidden.any(axis=0).mean() > 0.95  # hardly a place is spared
    assert len({tuple(np.argwhere(one)[0]) for one in hidden}) > 30


def test_labels_stay_with_their_pictures():
    for (images, labels), (_, original) in zip(_augmented(RIGHT, seed=0), RIGHT, strict=True):
        np.testing.assert_array_equal(labels, original)
        assert ((images.numpy().mean(axis=(1, 2, 3)) > 128) == (labels.numpy() == 1)).mean() > 0.9


def test_each_epoch_is_varied_anew():
    data = _augmented(RIGHT, seed=0)
    first, second = (next(iter(data))[0].numpy() for _ in range(2))
    assert np.abs(first - second).mean() > 1


def test_augmentation_keeps_the_number_of_batches():
    assert int(_augmented(RIGHT, seed=0).cardinality()) == BATCHES


@pytest.mark.parametrize("head", [keras.layers.Dense(1, "sigmoid"), keras.layers.Dense(2)])
def test_a_model_without_one_logit_is_refused(head):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, head(keras.layers.GlobalAveragePooling2D()(images)))
    data = tf.data.Dataset.from_tensors((np.zeros((1, 16, 16, 3)), [0]))
    with pytest.raises(ValueError, match="must return one logit"):
        train(model, data, data, epochs=1)


def test_arrays_in_place_of_a_dataset_are_refused():
    model, arrays = build_model(width=2), (np.zeros((1, 16, 16, 3)), [0])
    with pytest.raises(ValueError, match="`train_data` .* must be a tf.data.Dataset"):
        train(model, arrays, arrays, epochs=1)
