"""The cats-versus-dogs classifier: its architecture, its shipped weights, and models in files."""

import functools
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar

from cnnviz import model_files
from cnnviz.checks import check_integer

PRETRAINED_PATH = Path(__file__).parent / "weights" / "cats_vs_dogs.keras"
# (convolutions, filters / `width`) of each block: narrow at first, where a filter costs most.
BLOCKS = ((1, 1), (3, 2), (3, 14 / 3), (3, 34 / 3))


def build_model(
    *,
    image_size: int | None = None,
    width: int = 24,
    batch_normalization: bool = True,
    precision: str | None = None,
) -> keras.Model:
    """Build the cats-versus-dogs classifier, untrained: 1.94 million parameters at width 24.

    Four blocks of 3x3 convolutions at 1/2 to 1/16 of the resolution, with residual connections (He
    et al. 2016, https://arxiv.org/abs/1512.03385), then average pooling and one dense layer.

    Args:
        image_size: Side length of the images in pixels, 16 or more; None takes any.
        width: Filters in the first block, 1 or more.
        batch_normalization: False for looking inside: each convolution applies its ReLU itself.
        precision: Keras dtype policy, such as "mixed_bfloat16"; None takes the global one.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1), positive for dog.

    Example:
        >>> model = cnnviz.build_model(precision="mixed_bfloat16")
    """
    if image_size is not None:
        check_integer("image_size", image_size, 16)
    check_integer("width", width, 1)
    images = keras.Input((image_size, image_size, 3), name="images")
    features = keras.layers.Rescaling(1 / 127.5, -1, name="rescaling", dtype=precision)(images)
    for block, (convolutions, times) in enumerate(BLOCKS, start=1):
        options = {"normalize": batch_normalization, "dtype": precision}
        convolve = functools.partial(_convolve, filters=round(width * times), **options)
        features = convolve(features, f"block{block}_conv1", strides=2)
        for index in range(2, convolutions + 1):
            both = [features, convolve(features, f"block{block}_conv{index}")]
            features = keras.layers.Add(name=f"block{block}_add{index}", dtype=precision)(both)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling", dtype=precision)(features)
    # float32 whatever the precision policy: the loss needs exact logits.
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(pooled)
    return keras.Model(images, logit, name="cats_vs_dogs")


def _convolve(features, name, *, filters, strides=1, normalize, dtype):
    """Convolution and ReLU, as one layer or, for training, with normalization between them."""
    options = {"padding": "same", "kernel_initializer": "he_normal", "name": name, "dtype": dtype}
    options |= {"use_bias": False} if normalize else {"activation": "relu"}
    features = keras.layers.Conv2D(filters, 3, strides, **options)(features)
    if not normalize:
        return features
    norm = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm", dtype=dtype)
    return keras.layers.ReLU(name=f"{name}_relu", dtype=dtype)(norm(features))


def fold_batch_normalization(model):
    """Let each convolution of a trained model apply normalization and ReLU itself, in float32."""
    options = {"image_size": model.input_shape[1], "width": model.get_layer("block1_conv1").filters}
    folded = build_model(batch_normalization=False, precision="float32", **options)
    for layer in folded.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = model.get_layer(f"{layer.name}_norm")
            scale = norm.gamma.numpy() / (norm.moving_variance.numpy() + norm.epsilon) ** 0.5
            shift = norm.beta.numpy() - norm.moving_mean.numpy() * scale
            layer.set_weights([model.get_layer(layer.name).kernel.numpy() * scale, shift])
    folded.get_layer("logit").set_weights(model.get_layer("logit").get_weights())
    return folded


def calibrate(model, data):
    """Make the confidence of a model equal to its accuracy, by temperature scaling.

    Divides the weights of the last layer, a Dense(1), by the temperature in 0.05..20 that makes the
    labels of `data`, a tf.data.Dataset that was not trained on, most likely (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599), and returns it; above 1 the model was overconfident. One
    correct and one wrong label are added (Platt 1999): perfect accuracy gives finite confidence.
    """
    head = model.layers[-1]
    if not {"units": 1, "activation": "linear"}.items() <= head.get_config().items():
        raise ValueError(f"`model` (={model.name!r}) must end in Dense(1) without an activation")
    batches = [(model.predict_on_batch(images), labels) for images, labels in data]
    logits, labels = (
        np.concatenate(each).astype(float).ravel() for each in zip(*batches, strict=True)
    )
    targets = (len(labels) * labels + 1) / (len(labels) + 2)  # nearly 0 or 1

    def cross_entropy(log_temperature):
        scaled = logits / np.exp(log_temperature)
        return (np.logaddexp(0, scaled) - targets * scaled).mean()

    best = minimize_scalar(cross_entropy, bounds=np.log((0.05, 20)), method="bounded")
    temperature = float(np.exp(best.x))
    head.set_weights([weight / temperature for weight in head.get_weights()])
    return temperature


def load_pretrained() -> keras.Model:
    """Load the shipped classifier of cats and dogs, for any image size, best at 144 to 160 pixels.

    Example:
        >>> model = cnnviz.load_pretrained()
    """
    return keras.saving.load_model(PRETRAINED_PATH, compile=False)


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Save a model so that the file is complete, or as it was before, whatever interrupts this.

    `keras.Model.save` writes in place: a kill or a full disk loses the file before, too. `path` is
    a `.keras` file, for Keras from 3.8 on. Its folder is made if needed.

    Example:
        >>> cnnviz.save_model(cnnviz.build_model(width=1), "pets.keras")
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.suffix != ".keras":
        raise ValueError(f"`path` (='{path}') must end in '.keras'")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        written, readable = Path(folder, "written.keras"), Path(folder, "readable.keras")
        model.save(written)
        model_files.copy_readable(written, readable)
        os.replace(readable, path)


def load_model(path: str | os.PathLike[str], *, trusted: bool = False) -> keras.Model:
    """Load a whole model from a file, of Keras 3 or 2, to look into it. It is not compiled.

    Args:
        path: A `.keras` or `.h5` file; its content counts, not its suffix. A ValueError says why it
            cannot be loaded, and the remedy.
        trusted: Whether code in the file may run, such as that of Lambda layers. Keras before
            3.13.2 runs code of malicious files in any case, so there it must be True.

    Example:
        >>> cnnviz.save_model(cnnviz.build_model(width=1), "pets.keras")
        >>> model = cnnviz.load_model("pets.keras", trusted=True)
    """
    path = Path(path)
    suffix = model_files.checked_suffix(path, trusted)
    with tempfile.TemporaryDirectory() as folder:
        readable = Path(folder) / f"model{suffix}"
        written_by = model_files.copy_readable(path, readable)
        try:
            return keras.saving.load_model(readable, compile=False, safe_mode=not trusted)
        except Exception as error:  # Keras raises nearly anything on what it cannot read
            raise model_files.explanation(path, written_by, error) from error
