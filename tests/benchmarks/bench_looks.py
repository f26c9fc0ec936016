"""What looking inside a model costs, beside the usual recipes.

    python tests/benchmarks/bench_looks.py
    python tests/benchmarks/bench_looks.py --model vgg16 --image-size 224

prints ratios, all measured in this run in turn; nothing else should run beside it. Of repeated
measurements the best counts: other processes only ever add time. VGG16 has random weights, drawn so
that its channels live (He et al. 2015).

The recipes are those of the Keras examples: for filters one traced function a filter, 30 steps of
the normalized gradient times 10 from faint noise; for Grad-CAM a sub-model and a tape, image by
image. Their pixels may leave 0..255; all activations here are those of the image clipped to 0..255.
"""

import argparse
import resource
import time
import warnings

import keras
import numpy as np
import tensorflow as tf

import cnnviz
from cnnviz.layers import find_layer

ROUNDS = 25  # at most, of what takes milliseconds: the machine is not equally fast all the time
ENOUGH = 20  # seconds, after which no further round begins
N_IMAGES = 32
STEPS_TRIED = (1, 2, 3, 5, 8, 12, 16, 20, 30)
LAYER = "block3_conv3"  # whose filters are climbed; both models have one of this name


def build(name, image_size):
    keras.utils.set_random_seed(0)
    if name == "shipped":
        return cnnviz.load_pretrained()
    model = keras.applications.VGG16(
        weights=None, input_shape=(image_size, image_size, 3), classifier_activation=None
    )
    warnings.filterwarnings("ignore", "`(images|value_range)` .* look too large")  # not rescaled
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = layer.kernel.shape
            layer.kernel.assign(rng.normal(0, (2 / np.prod(kernel[:3])) ** 0.5, kernel))
    return model


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def seconds(*functions, rounds=3):
    """Seconds of the fastest call of each of several functions, called one after the other."""
    taken, start = [], time.perf_counter()
    while len(taken) <= min(rounds, 3) or (
        len(taken) <= rounds and time.perf_counter() - start < ENOUGH
    ):
        taken.append([timed(function)[1] for function in functions])
    return np.min(taken[1:], axis=0)  # the first round does not count


def recipe_ascent(model, filters, image_size, steps=30):
    """The usual recipe: one traced function for each filter."""
    extractor = keras.Model(model.input, model.get_layer(LAYER).output)

    @tf.function
    def step(image, filter_index, learning_rate):
        with tf.GradientTape() as tape:
            tape.watch(image)
            loss = tf.reduce_mean(extractor(image)[:, 2:-2, 2:-2, filter_index])
        gradient = tf.math.l2_normalize(tape.gradient(loss, image))
        return image + learning_rate * gradient

    images = []
    for index in filters:
        noise = tf.random.stateless_uniform((1, image_size, image_size, 3), (0, int(index)))
        image = 127.5 + (noise - 0.5) * 0.25 * 255
        for _ in range(steps):
            image = step(image, int(index), 10.0)
        images.append(image[0].numpy())
    return np.stack(images)


def our_ascent(model, filters, image_size, steps, **options):
    options |= {"image_size": image_size, "steps": steps}
    return cnnviz.ascend_filters(model, LAYER, filters, **options).images


def ascent_rows(model, image_size, filters):
    """The time for as few steps as reach the mean activation of the recipe."""

    def reached(images):
        maps = cnnviz.extract_activations(model, np.clip(images, 0, 255), LAYER)[LAYER]
        return float(maps.mean((1, 2))[np.arange(len(filters)), filters].mean())

    images, recipe = timed(lambda: recipe_ascent(model, filters, image_size))
    goal = reached(images)
    yield f"recipe, 30 steps: mean activation {goal:.4g} in {recipe:.1f} s"
    for steps in STEPS_TRIED:
        images, again = timed(lambda n=steps: our_ascent(model, filters, image_size, n))
        mean = reached(images)
        if mean >= goal:
            break
    fresh = keras.models.clone_model(model)  # nothing is traced for it yet
    fresh.set_weights(model.get_weights())
    _, first = timed(lambda: our_ascent(fresh, filters, image_size, steps))
    yield (
        f"cnnviz, {steps} steps: {mean:.4g} in {first:.1f} s with tracing, {again:.1f} s again; "
        f"recipe / cnnviz = {recipe / first:.1f}, {recipe / again:.1f}"
    )


def step_rows(model, image_size, filters):
    """A step of the ascent against one forward and backward pass of the layers it needs."""
    extractor = keras.Model(model.input, model.get_layer(LAYER).output)
    batch = filters[:16]
    images = tf.random.uniform((len(batch), image_size, image_size, 3), 0, 255, seed=0)

    @tf.function
    def bare(images):
        means = tf.reduce_mean(extractor(images), (1, 2))
        return tf.gradients(tf.gather(means, tf.constant(batch, tf.int32), batch_dims=1), images)

    def ours(steps):
        our_ascent(model, batch, image_size, steps, batch_size=len(batch))

    long, short, alone = seconds(
        lambda: ours(12), lambda: ours(2), lambda: [bare(images) for _ in range(10)]
    )
    yield f"a step of the ascent / one forward and backward pass: {(long - short) / alone:.2f}"


def recipe_grad_cam(submodel, images):
    """The usual recipe: a sub-model and a tape, image by image."""
    for image in images:
        with tf.GradientTape() as tape:
            features, output = submodel(image[None])
            score = output[:, 0]
        gradient = tf.reduce_mean(tape.gradient(score, features), (0, 1, 2))
        heat = tf.maximum(tf.squeeze(features[0] @ gradient[:, None]), 0)
        (heat / tf.reduce_max(heat)).numpy()


def grad_cam_rows(model, images):
    layer = find_layer(model, cnnviz.grad_cam(model, images[:1]).layer_name)[1]
    submodel = keras.Model(model.input, [layer.output, model.output])
    batch = tf.constant(images)

    @tf.function
    def floor(images):
        features, output = submodel(images)
        return tf.gradients(output[:, 0], features), features, output

    bare, ours = seconds(
        lambda: [part.numpy() for part in tf.nest.flatten(floor(batch))],
        lambda: cnnviz.grad_cam(model, images, class_index=0),
        rounds=ROUNDS,
    )
    yield f"Grad-CAM of {N_IMAGES} images / forward and backward of the head: {ours / bare:.2f}"
    (recipe,) = seconds(lambda: recipe_grad_cam(submodel, images), rounds=1)
    yield f"recipe image by image / cnnviz: {recipe / ours:.1f}"


def activation_rows(model, images):
    alone, ours = seconds(
        lambda: model.predict_on_batch(images),
        lambda: cnnviz.extract_activations(model, images),
        rounds=ROUNDS,
    )
    yield f"activations of all layers, {N_IMAGES} images / predict_on_batch: {ours / alone:.2f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("shipped", "vgg16"), default="shipped")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--filters", type=int, default=64)
    options = parser.parse_args()
    size = options.image_size
    model, filters = build(options.model, size), np.arange(options.filters)
    images = np.random.default_rng(0).uniform(0, 255, (N_IMAGES, size, size, 3)).astype(np.float32)
    print(f"{options.model}, {size} px; TensorFlow {tf.__version__}, Keras {keras.__version__}")
    for rows in (
        activation_rows(model, images),
        grad_cam_rows(model, images),
        step_rows(model, size, filters),
        ascent_rows(model, size, filters),
    ):
        for row in rows:
            print(row, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory of all this: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
