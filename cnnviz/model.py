"""() -> the classifier: images (N, H, W, 3) in 0..255 to one logit (N, 1), positive for dog."""

import re
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar

from cnnviz.checks import check_integer
from cnnviz.model_files import load_model

CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the processor is taken to have no bfloat16

PRETRAINED_PATH = Path(__file__).parent / "weights" / "cats_vs_dogs.keras"
# (convolutions, filters as a multiple of `width`) of each block; the first convolution of a block
# halves the resolution. At high resolution a filter costs most and has least to tell apart, so the
# first blocks are narrow and the last is wide.
BLOCKS = ((1, 1), (3, 2), (3, 14 / 3), (3, 34 / 3))


def build_model(
    *,
    image_size: int | None = None,
    width: int = 24,
    batch_normalization: bool = True,
    first_kernels: Literal["random", "cosines"] = "random",
    precision: str | None = None,
) -> keras.Model:
    """Build the cats-versus-dogs classifier, untrained.

    Four blocks of 3x3 convolutions at 1/2, 1/4, 1/8 and 1/16 of the resolution; after the first
    convolution of a block each adds to what it received (a residual connection, He et al. 2016).
    The head is global average pooling and one dense layer, so that a class activation map (Zhou et
    al. 2016) shows exactly what the model used. Layers are called `block1_conv1`, `block1_conv2`,
    `block1_add2` and so on.

    Args:
        image_size: Side length in pixels of the pictures; None takes any size from 16 up.
        width: Filters in the first block; the next ones have 2, 4.7 and 11.3 times as many.
        batch_normalization: True builds the network for training: convolution, batch
            normalisation and ReLU are three layers. False builds the one for looking into, in
            which each convolution applies its ReLU itself; `fold_batch_normalization` carries the
            weights over.
        first_kernels: What `block1_conv1` begins with: "random" kernels, as all other layers, or
            "cosines", the smoothest patterns of 3x3 pixels, along which natural pictures vary most
            (the discrete cosine transform of brightness and two opponent colours, those of Ohta et
            al. 1980), each with its negative, so that no ReLU loses anything. A short training gets
            further with them.
        precision: Keras dtype policy of the layers, such as "float32" or "mixed_bfloat16"; "auto"
            takes `fastest_precision()`, None the policy that is set globally. The logit is always
            computed in float32.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1). 1.94 million
        parameters at width 24.

    Raises:
        ValueError: If `image_size` is below 16, `width` below 1 or `first_kernels` another word.
    """
    if image_size is not None:
        check_integer("image_size", image_size, 16)
    check_integer("width", width, 1)
    if first_kernels not in ("random", "cosines"):
        raise ValueError(f"`first_kernels` (={first_kernels!r}) must be 'random' or 'cosines'")
    dtype = fastest_precision() if precision == "auto" else precision
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
    model = keras.Model(images, logit, name="cats_vs_dogs")
    if first_kernels == "cosines":
        # Not as an initializer: a file of the model would name it, and want cnnviz to be read.
        variable, cosines = model.get_layer("block1_conv1").kernel, cosine_kernels()
        kernels = variable.numpy()
        count = min(kernels.shape[-1], cosines.shape[-1])
        kernels[..., :count] = cosines[..., :count]
        variable.assign(kernels)
    return model


def cosine_kernels():
    """(3, 3, 3, 54): each cosine pattern of brightness and opponent colours, and its negative."""
    waves = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])  # of three pixels, and of three colours
    waves = waves / np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted(np.ndindex(3, 3, 3), key=lambda at: (at[0] + at[1] + (at[2] > 0), at))
    kernels = [sign * np.einsum("y,x,c->yxc", *waves[list(at)]) for at in order for sign in (1, -1)]
    return 2**0.5 * np.stack(kernels, axis=-1)  # as large as random ones


def fastest_precision() -> str:
    """The Keras dtype policy in which this machine trains fastest without losing accuracy.

    Returns:
        str: "mixed_bfloat16" on a processor with bfloat16 arithmetic and on NVIDIA GPUs from
        Ampere on (compute capability 8), "mixed_float16" on those from Volta on (7), else
        "float32".
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        major = capability[0] if capability else 0
        return {7: "mixed_float16"}.get(major, "mixed_bfloat16" if major >= 8 else "float32")
    return "mixed_bfloat16" if processor_has("amx_bf16", "avx512_bf16") else "float32"


def processor_has(*flags):
    """Whether the processor says of itself that it has one of these instruction sets (Linux)."""
    known = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    return re.search(rf"\b({'|'.join(flags)})\b", known) is not None


def _convolution(features, filters, strides, name, batch_normalization, dtype):
    """Convolution and ReLU, as one layer or, for training, with normalisation between them."""
    options = {"strides": strides, "padding": "same", "kernel_initializer": "he_normal"}
    options |= {"name": name, "dtype": dtype}
    if not batch_normalization:
        return keras.layers.Conv2D(filters, 3, activation="relu", **options)(features)
    features = keras.layers.Conv2D(filters, 3, use_bias=False, **options)(features)
    norm = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm", dtype=dtype)
    return keras.layers.ReLU(name=f"{name}_relu", dtype=dtype)(norm(features))


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """Turn a trained classifier into the same function with fewer layers.

    In inference batch normalisation is one scale and one shift for each filter, which the
    convolution before it can apply itself. What remains is easier to look into: the output of
    `block3_conv2` is the feature map after its ReLU.

    Args:
        model: A model from `build_model(batch_normalization=True)`.

    Returns:
        keras.Model: Equal outputs to rounding; float32, whatever the precision of the training.

    Raises:
        ValueError: If `model` has no batch normalisation after its convolutions.
    """
    if "block1_conv1_norm" not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"`model` (={model.name!r}) has no batch normalisation to fold; it must come from "
            "build_model(batch_normalization=True)"
        )
    first = model.get_layer("block1_conv1")
    folded = build_model(
        image_size=model.input_shape[1],
        width=first.filters,
        batch_normalization=False,
        precision="float32",
    )
    for layer in folded.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = model.get_layer(layer.name).kernel.numpy()
            norm = model.get_layer(f"{layer.name}_norm")
            scale = norm.gamma.numpy() / (norm.moving_variance.numpy() + norm.epsilon) ** 0.5
            shift = norm.beta.numpy() - norm.moving_mean.numpy() * scale
            layer.set_weights([kernel * scale, shift])
    folded.get_layer("logit").set_weights(model.get_layer("logit").get_weights())
    return folded


def calibrate(model: keras.Model, data: tf.data.Dataset) -> float:
    """Make the model as sure as it is right: temperature scaling (Guo et al. 2017).

    The logit is divided by the one number, the temperature, that makes the labels of `data` most
    likely, each with one right and one wrong one added (Platt 1999): labels that are all met do not
    make the model infinitely sure. No prediction changes its class, only its probability.

    Args:
        model: From `build_model`; its last layer is changed in place.
        data: tf.data.Dataset of (images, labels (B,) or (B, 1)) that the model was not trained on,
            such as the validation part.

    Returns:
        float: The temperature, within 0.05..20; above 1 the model was too sure.

    Raises:
        ValueError: If the model does not end in Dense(1) without an activation, or `data` is empty.
    """
    head = model.layers[-1]
    linear = isinstance(head, keras.layers.Dense) and head.activation is keras.activations.linear
    if not (linear and head.units == 1):
        raise ValueError(f"`model` (={model.name!r}) must end in Dense(1) without an activation")
    batches = [(model(images, training=False), labels) for images, labels in data]
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
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1), positive for dog; any
        picture size from 16 up, best at 144 and 160 pixels. Not compiled.
    """
    return load_model(PRETRAINED_PATH)
