"""The training loop on planted tasks: what it learns, keeps and survives."""

import contextlib
import gc
import shutil
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import without_xla

from cnnviz import training
from cnnviz.model import build_model
from cnnviz.optimizer import ConvolutionMuon, one_cycle
from cnnviz.recipe import WEIGHT_DECAY
from cnnviz.training import BestEpoch, read_history, train

# An exception stands for a kill, and leaves the file of the history open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
L = keras.layers
BATCHES = 4


def brightness_task(labels_correct=True, image_size=16, seed=0):
    """64 dark (0) and bright (1) images in 4 batches; the labels are flipped if asked."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], 32).astype(np.int32)
    noise = rng.normal(0, 15, (64, image_size, image_size, 3))
    images = np.clip(90 + 75 * labels[:, None, None, None] + noise, 0, 255).astype(np.float32)
    labels = labels if labels_correct else 1 - labels
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(64 // BATCHES)


def brightness_model(weight=0.0):
    """A classifier of four numbers: the weighted mean color. It trains in no time."""
    layers = [L.Rescaling(1 / 127.5, offset=-1), L.GlobalAveragePooling2D(), L.Dense(1)]
    model = without_xla(keras.Sequential([keras.Input((None, None, 3)), *layers]))
    model.set_weights([np.full((3, 1), weight, np.float32), np.zeros(1, np.float32)])
    return model


CORRECT, FLIPPED = brightness_task(), brightness_task(labels_correct=False)
GRAY = CORRECT.map(lambda images, labels: (images[..., :1], labels))
ASTRAY = {"learning_rate": 0.1, "augment": False, "verbose": 0}


def train_astray(model=None, *, epochs=6, **options):
    """A model that is correct from the start learns from flipped labels: it gets worse."""
    model = brightness_model(weight=0.3) if model is None else model
    return model, train(model, FLIPPED, CORRECT, epochs=epochs, **ASTRAY, **options)


def accuracy_of(model):
    """Counted here, on the images with the correct labels."""
    correct = [(model(images)[:, 0] > 0) == (labels == 1) for images, labels in CORRECT]
    return float(np.mean(correct))


def load(path):
    return keras.saving.load_model(path, compile=False)


def assert_same_weights(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Killed(Exception):
    pass


def raise_killed(model):
    raise Killed


def raise_interrupt(model):
    model.set_weights([weights + 1 for weights in model.get_weights()])
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(model, history, checkpoint) of `train_astray`, left alone."""
    path = tmp_path_factory.mktemp("whole") / "new folder" / "best.keras"
    return *train_astray(checkpoint=path), path


@pytest.fixture
def at_epoch(monkeypatch):
    """at_epoch(n, do): call do(model) at the beginning of epoch n; None for nothing."""

    def plant(index, do):
        def on_epoch_begin(history, epoch, logs=None):
            if epoch == index:
                do(history.model)

        monkeypatch.setattr(keras.callbacks.History, "on_epoch_begin", on_epoch_begin)

    return plant


@pytest.fixture
def killed_after(at_epoch, tmp_path):
    """killed_after(n) -> the checkpoint of `train_astray`, killed after n full epochs."""

    def kill(epochs, **options):
        path = tmp_path / "best.keras"
        at_epoch(epochs, raise_killed)
        with pytest.raises(Killed):
            train_astray(checkpoint=path, **options)
        at_epoch(None, None)
        return path

    return kill


def test_learns_a_planted_task_with_the_whole_recipe(monkeypatch):
    monkeypatch.setattr("cnnviz.model.BLOCKS", ((2, 1), (2, 2)))  # two blocks of the four
    keras.utils.set_random_seed(0)
    data = build_model(image_size=16, width=2), brightness_task(seed=1), CORRECT
    history = train(*data, epochs=6, learning_rate=0.03, verbose=0).history
    curves = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(history) == curves | {"image_size", "seconds"}
    assert all(len(values) == 6 for values in history.values())
    assert max(history["val_accuracy"]) > 0.9


def test_best_weights_are_left_in_the_model_and_in_the_checkpoint(whole):
    model, history, path = whole
    accuracies = history.history["val_accuracy"]
    assert accuracies[-1] < 0.1 < 0.9 < max(accuracies)
    assert accuracy_of(model) == max(accuracies) == accuracies[history.best_epoch]
    assert_same_weights(model, load(path))
    assert {file.name for file in path.parent.iterdir()} == {"best.keras", "best.keras.csv"}
    assert read_history(path) == history.history
    compiled = keras.saving.load_model(path)
    result = compiled.evaluate(CORRECT, return_dict=True, verbose=0)
    assert result["accuracy"] == max(accuracies)


def test_the_best_epoch_is_of_the_largest_size_most_accurate_and_then_of_the_lowest_loss():
    best = BestEpoch(brightness_model(), None, {})
    best.set_model(brightness_model())
    epochs = [(8, 1.0, 0.1), (16, 0.6, 0.5), (16, 0.6, 0.4), (16, 0.5, 0.1), (8, 0.9, 0.1)]
    for epoch, (best.image_size, accuracy, loss) in enumerate(epochs):
        best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss, "loss": 0.5})
    assert best.epoch == 2


def test_mixed_images_count_as_their_larger_part():
    model = brightness_model(weight=0.3)
    options = {"epochs": 1, "learning_rate": 0.0, "verbose": 0}
    mixed, plain = (
        train(model, CORRECT, CORRECT, cut_mix=share, **options).history for share in (1.0, 0.0)
    )
    assert plain["accuracy"] == [1.0] and mixed["val_accuracy"] == [1.0]
    # The model adds up brightness: lighting misleads it only if both parts are nearly equal.
    assert 0.8 < mixed["accuracy"][0] < 1
    assert mixed["loss"][0] > plain["loss"][0]
    model.set_weights([np.zeros((3, 1), np.float32), np.full(1, -1, np.float32)])  # all cats
    labels = np.array([[0.0], [0.3], [0.51], [1.0]], np.float32)
    metrics = model.evaluate(np.zeros((4, 8, 8, 3)), labels, verbose=0, return_dict=True)
    assert metrics["accuracy"] == 0.5


def small_network():
    """A convolution, for Muon, and no batch normalization, which would be of half a batch."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((None, None, 3)), L.Rescaling(1 / 127.5, offset=-1)]
    layers += [L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(1)]
    return without_xla(keras.Sequential(layers))


def test_steps_are_those_of_the_stated_optimizer_and_loss_on_several_devices_too():
    twin, options = small_network(), {"epochs": 2, "learning_rate": 0.01, "augment": False}
    optimizer = ConvolutionMuon(one_cycle(0.01, 2 * BATCHES), weight_decay=0.02)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    twin.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05))
    expected = twin.fit(CORRECT, validation_data=CORRECT, epochs=2, shuffle=False, verbose=0)
    for scope in (contextlib.nullcontext(), tf.distribute.MirroredStrategy(["CPU:0"]).scope()):
        with scope:
            model = small_network()
        history = train(model, CORRECT, CORRECT, verbose=0, **options).history
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(history[name], expected.history[name], rtol=1e-4)


def test_weight_decay_is_of_kernels_alone():
    """Without a gradient, only decay changes a weight."""
    model = build_model(width=1, precision="float32")
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(tf.ones(variable.shape))
    training._optimizer(model, 0.1).apply([tf.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        expected = 1 - 0.1 * WEIGHT_DECAY if variable.name == "kernel" else 1
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


def test_each_stage_gets_its_size_and_its_own_augmentation(monkeypatch):
    calls = []
    monkeypatch.setattr(training, "augmented", lambda data, **how: calls.append(how) or data)
    options = {"augment": 0.4, "cut_mix": 0.3, "seed": 5, "verbose": 0}
    train(brightness_model(), CORRECT, CORRECT, epochs=3, image_sizes=(8, 8, 9), **options)
    how = {"strength": 0.4, "cut_mix": 0.3}
    assert calls == [
        {"image_size": 8, "seed": 5} | how,
        {"image_size": 8},
        {"image_size": 9, "seed": 7} | how,
        {"image_size": 9},
    ]


def pixel_counting_model():
    """Its logit is the number of pixels, so its loss tells the image size."""
    images = keras.Input((None, None, 3))
    area = keras.ops.sum(L.Rescaling(0.0, offset=1.0)(images), axis=(1, 2))[:, :1]
    return keras.Model(images, L.Dense(1, kernel_initializer="ones")(area))


def test_each_epoch_trains_and_validates_at_its_image_size(killed_after, at_epoch, tmp_path):
    """Also if it is killed in its second size."""
    options = {"image_sizes": (4, 6, 6, 9), "learning_rate": 1e-9, "verbose": 0}
    options |= {"epochs": 4, "checkpoint": tmp_path / "best.keras"}
    at_epoch(2, raise_killed)
    with pytest.raises(Killed):
        train(pixel_counting_model(), CORRECT, CORRECT, **options)
    at_epoch(None, None)
    history = train(pixel_counting_model(), CORRECT, CORRECT, **options).history
    assert history["image_size"] == [4, 6, 6, 9]
    # The logit is 16, 36, 36, 81 for all images, half of which are dogs. The loss is half of it for
    # the cats and nearly zero for the dogs; the smoothed labels take a little away.
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history[name], np.array([16, 36, 36, 81]) / 2, rtol=0.06)


def test_interrupt_in_the_first_epoch_leaves_the_model_as_it_came(at_epoch, capsys):
    at_epoch(0, raise_interrupt)
    model, history = train_astray()
    assert "Interrupted" in capsys.readouterr().out
    assert history.best_epoch is None and history.history == {}
    assert_same_weights(model, brightness_model(weight=0.3))


def test_interrupt_keeps_the_best_weights_and_the_history_and_training_continues(
    at_epoch, tmp_path, capsys
):
    at_epoch(4, raise_interrupt)
    model, history = train_astray(checkpoint=tmp_path / "best.keras")
    assert "Call `train` again to continue." in capsys.readouterr().out
    accuracies = history.history["val_accuracy"]
    assert len(accuracies) == 4 and accuracies[-1] < max(accuracies) == accuracy_of(model)
    steps = []
    at_epoch(4, lambda model: steps.append(int(model.optimizer.iterations)))
    model, history = train_astray(checkpoint=tmp_path / "best.keras")
    assert steps == [4 * BATCHES] and len(history.history["loss"]) == 6
    _, second = train_astray(model, epochs=1)  # which does not begin at epoch 4
    assert len(second.history["loss"]) == 1


def test_nan_ends_the_training_and_keeps_the_best_weights(at_epoch, tmp_path):
    at_epoch(2, lambda model: model.set_weights([w * np.nan for w in model.get_weights()]))
    options = {"checkpoint": tmp_path / "best.keras", "image_sizes": (8, 8, 8, 8, 9, 9)}
    with pytest.warns(UserWarning, match=r"epoch 3.*Lower the `learning_rate` \(=0.1\)"):
        model, history = train_astray(**options)
    assert len(history.history["loss"]) == 3
    assert accuracy_of(model) == max(history.history["val_accuracy"][:2])
    assert_same_weights(model, load(tmp_path / "best.keras"))


def test_nan_in_the_first_epoch_leaves_the_model_as_it_came(tmp_path):
    model, path = brightness_model(weight=0.3), tmp_path / "best.keras"
    options = ASTRAY | {"learning_rate": np.inf, "checkpoint": path, "epochs": 1}
    with pytest.warns(UserWarning, match="epoch 1"):
        train(model, FLIPPED.take(1), CORRECT, **options)
    assert_same_weights(model, brightness_model(weight=0.3))
    assert not path.exists()


def damage_files(path):
    """Half of the latest state, and the history of an epoch whose state was not written."""
    state = path.with_name("best.keras.resume") / "latest.weights.h5"
    state.write_bytes(state.read_bytes()[:1000])
    file = path.with_name("best.keras.csv")
    *rows, last = file.read_text().splitlines()
    file.write_text("\n".join([*rows, last, last.replace("2,", "3,", 1), ""]))


@pytest.mark.parametrize("epochs, damaged", [(0, False), (3, False), (3, True)])
def test_killed_training_continues_after_its_last_full_epoch(epochs, damaged, killed_after, whole):
    """And does not replace better weights by worse ones."""
    _, expected, _ = whole
    assert max(expected.history["val_accuracy"][3:]) < 0.9
    path = killed_after(epochs)
    if damaged:
        damage_files(path)
    model, history = train_astray(checkpoint=path)
    assert history.history.keys() == expected.history.keys()
    for name in history.history.keys() - {"seconds"}:
        np.testing.assert_allclose(history.history[name], expected.history[name], rtol=1e-5)
    assert history.best_epoch == expected.best_epoch and history.epoch == [*range(6)]
    assert_same_weights(model, load(path))
    assert accuracy_of(model) == max(expected.history["val_accuracy"])
    assert int(model.optimizer.iterations) == 6 * BATCHES  # so the learning rate ended at zero


def test_training_killed_after_its_last_epoch_still_gives_the_best_weights(monkeypatch, tmp_path):
    path = tmp_path / "best.keras"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "shutil", SimpleNamespace(rmtree=raise_killed))
        train_astray(checkpoint=path)
    model, history = train_astray(checkpoint=path)
    assert len(history.history["val_loss"]) == 6
    assert_same_weights(model, load(path))


def test_a_training_after_one_that_ended_keeps_its_files(whole, tmp_path):
    path = shutil.copytree(whole[2].parent, tmp_path / "pets") / "best.keras"
    best, curves = path.read_bytes(), path.with_name("best.keras.csv").read_bytes()
    model, history = train_astray(brightness_model(weight=-0.3), checkpoint=path)
    assert len(history.history["loss"]) == 6
    assert accuracy_of(load(path)) < 0.9
    assert path.with_name("best.earlier.keras").read_bytes() == best
    assert path.with_name("best.earlier.keras.csv").read_bytes() == curves


def test_the_state_of_another_model_is_an_error_that_says_what_to_do(killed_after):
    path = killed_after(2)
    message = r"`checkpoint` \(='.*best.keras'\) .* another model.*best.keras.resume"
    with pytest.raises(ValueError, match=message):
        train(small_network(), CORRECT, CORRECT, epochs=6, checkpoint=path, **ASTRAY)


def test_images_of_other_types_train_as_float32_does_and_the_model_can_be_freed():
    """TensorFlow never frees the function that augments images, nor what it refers to."""
    losses = []
    for dtype in ("uint8", "float32"):
        data = CORRECT.map(lambda x, y: (tf.cast(tf.round(x), dtype), y))  # noqa: B023
        model = brightness_model()
        options = {"epochs": 1, "image_sizes": (8,), "verbose": 0}
        losses += train(model, data, data, **options).history["loss"]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_loss_is_scaled_where_gradients_are_float16():
    layers = [L.GlobalAveragePooling2D(dtype="mixed_float16"), L.Dense(1, dtype="float32")]
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    optimizers = [training._optimizer(one, 0.1) for one in (model, brightness_model())]
    scaled = [isinstance(one, keras.optimizers.LossScaleOptimizer) for one in optimizers]
    assert scaled == [True, False]


def test_a_subclassed_model_is_trained():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = brightness_model()

        def call(self, images):
            return self.inner(images)

    model = Subclassed()
    model(np.zeros((1, 16, 16, 3)))
    train(model, CORRECT, CORRECT, epochs=5, **ASTRAY)
    assert accuracy_of(model) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, r"`epochs` \(=0\)"),
        ({"image_sizes": (8, 8)}, r"`image_sizes` \(=\[8, 8\]\) .* each of the 1 `epochs`"),
        ({"image_sizes": (8.5,)}, r"`image_sizes` \(=8.5\) must be an integer"),
        ({"augment": 2.5}, r"`augment` \(=2.5\) must be a number in 0..2"),
        ({"cut_mix": np.nan}, r"`cut_mix` \(=nan\) must be a number in 0..1"),
        ({"train_data": GRAY}, r"`train_data` \(with images .*must have RGB images"),
        ({"train_data": (np.zeros(2), [0])}, "`train_data` .* tf.data.Dataset"),
        ({"train_data": CORRECT.unbatch()}, r"`train_data` .*: images \(B, H, W, 3\)"),
        ({"validation_data": CORRECT.map(lambda x, y: x)}, "`validation_data` .* labels"),
        ({"train_data": CORRECT.map(lambda x, y: (x, 2 * y - 1))}, "`train_data` .*labels"),
        ({"train_data": CORRECT.map(lambda x, y: (x, tf.one_hot(y, 2)))}, r"of shape \(.*, 2\)"),
        ({"validation_data": CORRECT.map(lambda x, y: (x, y + 1))}, "`validation_data` .*labels"),
        ({"train_data": CORRECT.repeat()}, "`train_data` .*cardinality -1"),
        ({"validation_data": CORRECT.take(0)}, "`validation_data` .*cardinality 0"),
        ({"checkpoint": "best.h5"}, r"`checkpoint` \(='best.h5'\).*\.keras"),
    ],
)
def test_what_cannot_be_trained_is_an_error_by_its_name(change, message):
    options = {"train_data": CORRECT, "validation_data": CORRECT, "epochs": 1} | change
    with pytest.raises(ValueError, match=message):
        train(brightness_model(), **options)


@pytest.mark.parametrize("head", [L.Dense(1, "sigmoid"), L.Dense(2), L.Dense(1, "relu")])
def test_a_model_without_one_logit_is_refused(head):
    model = keras.Sequential([keras.Input((16, 16, 3)), L.GlobalAveragePooling2D(), head])
    with pytest.raises(ValueError, match="must return one logit|no classifier"):
        train(model, CORRECT, CORRECT, epochs=1)


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0), (2 / 255, -1), (1, -124), (257, 0)])
def test_rescaled_images_are_not_augmented(scale, offset):
    rescaled = CORRECT.map(lambda images, labels: (images * scale + offset, labels))
    with pytest.raises(ValueError, match=r"`train_data` .* must have RGB images in 0..255"):
        train(brightness_model(), rescaled, rescaled, epochs=1, verbose=0)
    training._check_data("train_data", rescaled, is_augmented=False)
