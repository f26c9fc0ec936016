"""() -> the classifier: images (N, H, W, 3) in 0..255 to one logit (N, 1), positive for dog."""

from pathlib import Path

import keras

PRETRAINED_PATH = Path(__file__).parent / "weights" / "cats_vs_dogs.keras"
CONVOLUTIONS = (2, 3, 3, 3)  # in each block; the first one of a block halves the resolution


def build_model(*, image_size=None, width=32, batch_normalization=True):
    """Build the cats-versus-dogs classifier, untrained.

    Four blocks of 3x3 convolutions at 1/2, 1/4, 1/8 and 1/16 of the resolution; after the first
    convolution of a block each adds to what it received (a residual connection, He et al. 2016).
    The head is global average pooling and one dense layer, so that a class activation map (Zhou et
    al. 2016) shows exactly what the model used. Layers are called `block1_conv1`, `block1_conv2`,
    `block1_add2` and so on.

    Args:
        image_size: Side length in pixels of the pictures; None takes any size from 16 up.
        width: Filters in the first block; each block has twice as many as the one before.
        batch_normalization: True builds the network for training: convolution, batch
            normalisation and ReLU are three layers. False builds the one for looking into, in
            which each convolution applies its ReLU itself; `fold_batch_normalization` carries the
            weights over.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1). 1.95 million
        parameters at width 32.

    Raises:
        ValueError: If `image_size` is below 16 or `width` below 1.
    """
    if image_size is not None and not (isinstance(image_size, int) and image_size >= 16):
        raise ValueError(f"`image_size` (={image_size}) must be 16 or more, or None for any size")
    if width < 1:
        raise ValueError(f"`width` (={width}) must be 1 or more")
    images = keras.Input((image_size, image_size, 3), name="images")
    features = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(images)
    for block, convolutions in enumerate(CONVOLUTIONS, start=1):
        filters = width * 2 ** (block - 1)
        for index in range(1, convolutions + 1):
            name = f"block{block}_conv{index}"
            strides = 2 if index == 1 else 1
            convolved = _convolution(features, filters, strides, name, batch_normalization)
            if index == 1:
                features = convolved
            else:
                add = keras.layers.Add(name=f"block{block}_add{index}")
                features = add([features, convolved])
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(features)
    # float32 whatever the precision policy: the loss needs exact logits.
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(pooled)
    return keras.Model(images, logit, name="cats_vs_dogs")


def _convolution(features, filters, strides, name, batch_normalization):
    """Convolution and ReLU, as one layer or, for training, with normalisation between them."""
    options = {"strides": strides, "padding": "same", "kernel_initializer": "he_normal"}
    if not batch_normalization:
        return keras.layers.Conv2D(filters, 3, activation="relu", name=name, **options)(features)
    features = keras.layers.Conv2D(filters, 3, use_bias=False, name=name, **options)(features)
    features = keras.layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(features)
    return keras.layers.ReLU(name=f"{name}_relu")(features)


def fold_batch_normalization(model):
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
    with _float32_policy():
        folded = build_model(
            image_size=model.input_shape[1], width=first.filters, batch_normalization=False
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


class _float32_policy:  # noqa: N801 - a context manager, used like a function
    """Build float32 layers, whatever the global precision policy is."""

    def __enter__(self):
        self.policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")

    def __exit__(self, *error):
        keras.config.set_dtype_policy(self.policy)


def load_pretrained():
    """Load the shipped classifier, trained from scratch on photographs of cats and dogs.

    Returns:
        keras.Model: float32 images (N, H, W, 3) in 0..255 to logits (N, 1), positive for dog; any
        picture size from 16 up, best near the 128 pixels of its training. Not compiled.
    """
    return keras.saving.load_model(PRETRAINED_PATH, compile=False)
