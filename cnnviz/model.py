"""The cats-versus-dogs classifier: its architecture, its shipped weights, and models in files."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar

from cnnviz import model_files
from cnnviz.checks import check_integer

CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the processor is taken to have no bfloat16
PRETRAINED_PATH = Path(__file__).parent / "weights" / "cats_vs_dogs.keras"
# (convolutions, filters as a multiple of `width`) of each block; the first convolution of a block
# halves the resolution. At high resolution a filter costs most and finds least, so the first blocks
# are narrow and the last is wide.
BLOCKS = ((1, 1), (3, 2), (3, 14 / 3), (3, 34 / 3))


def build_model(
    *,
    image_size: int | None = None,
    width: int = 24,
    batch_normalization: bool = True,
    precision: str | None = None,
) -> keras.Model:
    """Build the cats-versus-dogs classifier, untrained.

    Four blocks of 3x3 convolutions at 1/2, 1/4, 1/8 and 1/16 of the resolution. After the first
    convolution of a block, each one adds to its input (a residual connection, He et al. 2016,
    https://arxiv.org/abs/1512.03385). The head is global average pooling and one dense layer, so a
    class activation map shows exactly what the model used. Layers are called `block1_conv1`,
    `block2_conv2`, `block2_add2` and so on.

    Args:
        image_size: Side length of the images in pixels; None takes any size from 16 up.
        width: Filters in the first block; the next ones have 2, 4.7 and 11.3 times as many.
        batch_normalization: True builds the network for training: convolution, batch normalization
            and ReLU are three layers. False builds the one to look into, in which each convolution
            applies its ReLU itself; `fold_batch_normalization` carries the weights over.
        precision: Keras dtype policy of the layers, such as "float32" or "mixed_bfloat16"; "auto"
            takes the one in which this machine trains fastest, None the global policy. The logit is
            always computed in float32.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1). 1.94 million
        parameters at width 24.

    Raises:
        ValueError: If `image_size` is below 16 or `width` below 1.

    Example:
        >>> model = cnnviz.build_model(precision="auto")
    """
    if image_size is not None:
        check_integer("image_size", image_size, 16)
    check_integer("width", width, 1)
    dtype = _fastest_precision() if precision == "auto" else precision
    images = keras.Input((image_size, image_size, 3), name="images")
    rescaling = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling", dtype=dtype)
    features = rescaling(images)
    for block, (convolutions, times) in enumerate(BLOCKS, start=1):
        filters = round(width * times)
        for index in range(1, convolutions + 1):
            name = f"block{block}_conv{index}"
            strides = 2 if index == 1 else 1
            convolved = _convolution(features, filters, strides, name, batch_normalization, dtype)
            if index == 1:
                features = convolved
            else:
                add = keras.layers.Add(name=f"block{block}_add{index}", dtype=dtype)
                features = add([features, convolved])
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling", dtype=dtype)(features)
    # float32 whatever the precision policy: the loss needs exact logits.
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(pooled)
    return keras.Model(images, logit, name="cats_vs_dogs")


def _convolution(features, filters, strides, name, batch_normalization, dtype):
    """Convolution and ReLU, as one layer or, for training, with normalization between them."""
    options = {"strides": strides, "padding": "same", "kernel_initializer": "he_normal"}
    options |= {"name": name, "dtype": dtype}
    if not batch_normalization:
        return keras.layers.Conv2D(filters, 3, activation="relu", **options)(features)
    features = keras.layers.Conv2D(filters, 3, use_bias=False, **options)(features)
    norm = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm", dtype=dtype)
    return keras.layers.ReLU(name=f"{name}_relu", dtype=dtype)(norm(features))


def _fastest_precision():
    """The Keras dtype policy in which this machine trains fastest without losing accuracy."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        has_bfloat16 = details.get("compute_capability", (0, 0)) >= (8, 0)  # from Ampere on
    else:
        has_bfloat16 = processor_has("amx_bf16", "avx512_bf16")
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def processor_has(*flags):
    """Whether the processor says that it has one of these instruction sets (Linux)."""
    known = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    return re.search(rf"\b({'|'.join(flags)})\b", known) is not None


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """Turn a trained classifier into the same function with fewer layers.

    In inference, batch normalization is one scale and one shift for each filter. The convolution
    before it can apply both itself. What remains is easier to look into: the output of
    `block3_conv2` is the feature map after its ReLU.

    Args:
        model: A model from `build_model(batch_normalization=True)`.

    Returns:
        keras.Model: Equal outputs to rounding; float32, whatever the precision of the training.

    Raises:
        ValueError: If `model` has no batch normalization after its convolutions.

    Example:
        >>> folded = fold_batch_normalization(model)
    """
    if "block1_conv1_norm" not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"`model` (={model.name!r}) has no batch normalization to fold; it must come from "
            "build_model(batch_normalization=True)"
        )
    folded = build_model(
        image_size=model.input_shape[1],
        width=model.get_layer("block1_conv1").filters,
        batch_normalization=False,
        precision="float32",
    )
    for layer in folded.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = model.get_layer(f"{layer.name}_norm")
            scale = norm.gamma.numpy() / (norm.moving_variance.numpy() + norm.epsilon) ** 0.5
            shift = norm.beta.numpy() - norm.moving_mean.numpy() * scale
            layer.set_weights([model.get_layer(layer.name).kernel.numpy() * scale, shift])
    folded.get_layer("logit").set_weights(model.get_layer("logit").get_weights())
    return folded


def calibrate(model: keras.Model, data: tf.data.Dataset) -> float:
    """Make the confidence of a model equal to its accuracy, by temperature scaling.

    All logits are divided by one number, the temperature, that makes the labels of `data` most
    likely (Guo et al. 2017, https://arxiv.org/abs/1706.04599). One correct and one wrong label are
    added to them (Platt 1999), so that a perfect accuracy does not make the model infinitely
    confident. No prediction changes its class, only its probability.

    Args:
        model: From `build_model`; its last layer is changed in place.
        data: tf.data.Dataset of (images, labels (B,) or (B, 1)) that the model was not trained on,
            such as the validation split.

    Returns:
        float: The temperature, within 0.05..20; above 1 the model was overconfident.

    Raises:
        ValueError: If the model does not end in Dense(1) without an activation, or `data` is empty.

    Example:
        >>> temperature = calibrate(model, validation)
    """
    head = model.layers[-1]
    linear = isinstance(head, keras.layers.Dense) and head.activation is keras.activations.linear
    if not (linear and head.units == 1):
        raise ValueError(f"`model` (={model.name!r}) must end in Dense(1) without an activation")
    batches = [(model.predict_on_batch(images), labels) for images, labels in data]
    if not batches:
        raise ValueError("`data` (without a single batch) must not be empty")
    logits, labels = (
        np.concatenate(both).astype(np.float64).ravel() for both in zip(*batches, strict=True)
    )
    towards_label = logits * (2 * labels - 1)
    wrong = 1 / (len(labels) + 2)

    def cross_entropy(log_temperature):
        sharpened = towards_label / np.exp(log_temperature)
        likely, unlikely = np.logaddexp(0, -sharpened), np.logaddexp(0, sharpened)
        return ((1 - wrong) * likely + wrong * unlikely).mean()

    best = minimize_scalar(cross_entropy, bounds=np.log((0.05, 20)), method="bounded")
    temperature = float(np.exp(best.x))
    head.set_weights([weight / temperature for weight in head.get_weights()])
    return temperature


def load_pretrained() -> keras.Model:
    """Load the shipped classifier, trained from scratch on photographs of cats and dogs.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1), positive for dog. It
        takes any image size from 16 up and is best at 144 to 160 pixels. Not compiled.

    Example:
        >>> model = cnnviz.load_pretrained()
    """
    return keras.saving.load_model(PRETRAINED_PATH, compile=False)


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Save a model so that the file is complete, or as it was before, whatever interrupts this.

    `keras.Model.save` writes in place: if the process is killed, or the disk is full, the file
    before is lost too. The file can also be read by older versions of Keras, from 3.8 on.

    Args:
        model: keras.Model.
        path: A file that ends in `.keras`. Its folder is made if needed. If it is a link, its
            target is written.

    Raises:
        ValueError: If `path` does not end in `.keras`, or `model` is no keras.Model.
        OSError: If the file cannot be written; `path` is then as it was.

    Example:
        >>> cnnviz.save_model(model, "pets.keras")
    """
    path = Path(os.path.realpath(path))
    if path.suffix != ".keras":
        raise ValueError(f"`path` (='{path}') must end in '.keras'")
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    unfinished = Path(f"{path}.new.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "model.keras"
            model.save(written)
            model_files.copy_readable(written, unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"`path` (='{path}') cannot be written and is as it was: {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def load_model(path: str | os.PathLike[str], *, trusted: bool = False) -> keras.Model:
    """Load a whole model from a file, to look into it.

    Files of Keras 2 are read too, as far as Keras 3 has their layers.

    Args:
        path: A `.keras` or `.h5` file; its content counts, not its suffix.
        trusted: Whether code in the file may run, such as that of Lambda layers. Versions of Keras
            before 3.13.2 run code of malicious files in any case, so there it must be True.

    Returns:
        keras.Model, not compiled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no model, is damaged, or cannot be loaded. The message says
            what the file is, and the remedy.

    Example:
        >>> model = cnnviz.load_model("yours.keras")
    """
    path = Path(path)
    suffix = model_files.suffix_of(path)
    model_files.check_trust(path, trusted)
    with tempfile.TemporaryDirectory() as folder:
        readable = Path(folder) / f"model{suffix}"
        written_by = model_files.copy_readable(path, readable)
        try:
            return keras.saving.load_model(readable, compile=False, safe_mode=not trusted)
        except Exception as error:  # Keras raises nearly anything on what it cannot read
            raise model_files.explanation(path, written_by, error) from error
