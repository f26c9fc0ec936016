"""(shipped model, VGG16) -> what looking inside costs, beside the usual recipes and tf-keras-vis.

    python tests/benchmarks/bench_looks.py
    python tests/benchmarks/bench_looks.py --model vgg16 --image-size 224

prints a table of ratios, all measured in this run in turn; nothing else should run beside it. Of
repeated measurements the best counts: what else the machine does only ever adds time. VGG16 has
random weights, drawn so that its channels live (He et al. 2015), since none can be assumed to be
there. tf-keras-vis is left out unless it is installed (`pip install tf-keras-vis==0.8.7`).

The recipes are those of the Keras examples: for filters one traced function a filter, 30 steps of
the normalised gradient times 10 from faint noise; for Grad-CAM a sub-model and a tape, picture by
picture. Their pixels may run out of 0..255, and then report responses that no picture causes: all
activations here are those of the picture clipped to 0..255.
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

ROUNDS = 3
SHORT_ROUNDS = 25  # of what takes milliseconds: the machine is not equally fast all the time
ENOUGH = 20  # seconds, after which no further round begins
PICTURES = 32
STEPS_TRIED = (1, 2, 3, 5, 8, 12, 16, 20, 30)
LAYER = "block3_conv3"  # whose filters are climbed; both models have one of this name


def build(name, image_size):
    """(model, layer whose filters are climbed)."""
    keras.utils.set_random_seed(0)
    if name == "shipped":
        return cnnviz.load_pretrained(), LAYER
    model = keras.applications.VGG16(
        weights=None, input_shape=(image_size, image_size, 3), classifier_activation=None
    )
    warnings.filterwarnings("ignore", "`(images|value_range)` .* look too large")  # not rescaled
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = layer.kernel.shape
            layer.kernel.assign(rng.normal(0, (2 / np.prod(kernel[:3])) ** 0.5, kernel))
    return model, LAYER


def seconds(function, rounds=ROUNDS):
    """Seconds of the fastest of several calls, after one that does not count."""
    return in_turn(function, rounds=rounds)[0]


def in_turn(*functions, rounds=SHORT_ROUNDS):
    """Seconds of the fastest call of each of several functions, called one after the other."""
    taken, start = [], time.perf_counter()
    while len(taken) <= min(rounds, ROUNDS) or (
        len(taken) <= rounds and time.perf_counter() - start < ENOUGH
    ):
        taken.append([timed(function)[1] for function in functions])
    return np.min(taken[1:], axis=0)  # the first round does not count


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def mean_activation(model, layer_name, images, filters):
    """Mean over the filters of the activation that each has on its own picture, in 0..255."""
    maps = cnnviz.extract_activations(model, np.clip(images, 0, 255), layer_name)[layer_name]
    return float(maps.mean((1, 2))[np.arange(len(filters)), filters].mean())


# ---------------------------------------------------------------------------- filter ascent


def recipe_ascent(model, layer_name, filters, image_size, steps=30):
    """The usual recipe: one traced function for each filter."""
    extractor = keras.Model(model.input, model.get_layer(layer_name).output)

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


def tf_keras_vis_ascent(model, layer_name, filters, image_size, steps):
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.utils.scores import CategoricalScore

    extractor = keras.Model(model.input, model.get_layer(layer_name).output)
    noise = tf.random.uniform((len(filters), image_size, image_size, 3), 0, 255, seed=0)
    maximize = ActivationMaximization(extractor)
    return np.asarray(maximize(CategoricalScore(list(filters)), seed_input=noise, steps=steps))


def ascent_rows(model, layer_name, image_size, filters):
    def ours(steps):
        return cnnviz.ascend_filters(
            model, layer_name, filters, image_size=image_size, steps=steps
        ).images

    images, recipe_time = timed(lambda: recipe_ascent(model, layer_name, filters, image_size))
    goal = mean_activation(model, layer_name, images, filters)
    yield f"recipe, 30 steps: mean activation {goal:.4g} in {recipe_time:.1f} s"
    fresh = keras.models.clone_model(model)  # nothing traced for it yet
    fresh.set_weights(model.get_weights())
    for steps in STEPS_TRIED:
        reached = mean_activation(model, layer_name, ours(steps), filters)
        if reached >= goal:
            break
    _, first = timed(
        lambda: cnnviz.ascend_filters(
            fresh, layer_name, filters, image_size=image_size, steps=steps
        )
    )
    again = seconds(lambda: ours(steps), 2)
    yield (
        f"cnnviz, {steps} steps: {reached:.4g} in {first:.1f} s with tracing, {again:.1f} s again; "
        f"recipe / cnnviz = {recipe_time / first:.1f}, {recipe_time / again:.1f}"
    )
    try:
        for steps in (3, 5, 8, 12, 30, 100, 200):
            images, taken = timed(
                lambda steps=steps: tf_keras_vis_ascent(
                    model, layer_name, filters, image_size, steps
                )
            )
            reached = mean_activation(model, layer_name, images, filters)
            if reached >= goal:
                break
        yield (
            f"tf-keras-vis, {steps} steps: {reached:.4g} in {taken:.1f} s; "
            f"tf-keras-vis / cnnviz = {taken / first:.1f}, {taken / again:.1f}"
        )
    except Exception as error:  # not installed, or it does not know this Keras
        yield f"tf-keras-vis: {type(error).__name__}: {str(error)[:90]}"


def step_cost(model, layer_name, image_size, filters):
    """A step of the ascent against one forward and backward pass of the layers it needs."""
    extractor = keras.Model(model.input, model.get_layer(layer_name).output)
    batch = filters[:16]
    chosen = tf.constant(batch, tf.int32)
    images = tf.random.uniform((len(batch), image_size, image_size, 3), 0, 255, seed=0)

    @tf.function
    def bare(images):
        means = tf.reduce_mean(extractor(images), (1, 2))
        return tf.gradients(tf.gather(means, chosen, batch_dims=1), images)

    def ours(steps):
        cnnviz.ascend_filters(
            model, layer_name, batch, image_size=image_size, steps=steps, batch_size=len(batch)
        )

    step = (seconds(lambda: ours(12)) - seconds(lambda: ours(2))) / 10
    alone = seconds(lambda: [bare(images) for _ in range(10)]) / 10
    yield f"a step of the ascent / one forward and backward pass: {step / alone:.2f}"


# --------------------------------------------------------------------------------- Grad-CAM


def recipe_grad_cam(model, layer_name, images):
    """The usual recipe: a sub-model and a tape, picture by picture."""
    layer = model.get_layer(layer_name)
    submodel = keras.Model(model.input, [layer.output, model.output])
    maps = []
    for image in images:
        with tf.GradientTape() as tape:
            features, output = submodel(image[None])
            score = output[:, 0]
        gradient = tf.reduce_mean(tape.gradient(score, features), (0, 1, 2))
        heat = tf.maximum(tf.squeeze(features[0] @ gradient[:, None]), 0)
        maps.append((heat / tf.reduce_max(heat)).numpy())
    return np.stack(maps)


def tf_keras_vis_grad_cam(model, layer_name, images):
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    score = CategoricalScore([0] * len(images))
    return Gradcam(model)(score, images, penultimate_layer=layer_name)


def grad_cam_rows(model, images):
    layer_name = cnnviz.grad_cam(model, images[:1]).layer_name
    layer = find_layer(model, layer_name)[1]
    submodel = keras.Model(model.input, [layer.output, model.output])
    batch = tf.constant(images)

    @tf.function
    def floor(images):
        features, output = submodel(images)
        return tf.gradients(output[:, 0], features), features, output

    bare, ours = in_turn(
        lambda: [part.numpy() for part in tf.nest.flatten(floor(batch))],
        lambda: cnnviz.grad_cam(model, images, class_index=0),
    )
    yield f"Grad-CAM of {PICTURES} pictures / forward and backward of the head: {ours / bare:.2f}"
    recipe = seconds(lambda: recipe_grad_cam(model, layer_name, images), 1)
    yield f"recipe picture by picture / cnnviz: {recipe / ours:.1f}"
    try:
        other = seconds(lambda: tf_keras_vis_grad_cam(model, layer_name, images))
        yield f"tf-keras-vis / cnnviz: {other / ours:.1f}"
    except Exception as error:  # not installed, or it does not know this Keras
        yield f"tf-keras-vis: {type(error).__name__}: {str(error)[:90]}"


# ------------------------------------------------------------------------ activations, first


def activation_rows(model, images):
    alone, ours = in_turn(
        lambda: model.predict_on_batch(images),
        lambda: cnnviz.extract_activations(model, images),
    )
    yield f"activations of all layers, {PICTURES} pictures / predict_on_batch: {ours / alone:.2f}"


def first_calls(name, image_size, images):
    """First call of each method on a model that was never looked into, against the recipe's.

    Grad-CAM is of the last feature map, which `grad_cam` finds and the recipe has to be told.
    """
    last = cnnviz.grad_cam(build(name, image_size)[0], images[:1]).layer_name
    pairs = (
        ("grad_cam", lambda model, _: cnnviz.grad_cam(model, images[:1]),
         lambda model, _: recipe_grad_cam(model, last, images[:1])),
        ("activations", lambda model, layer: cnnviz.extract_activations(model, images[:1]),
         lambda model, layer: keras.Model(
             model.input, [one.output for one in model.layers[1:]]
         ).predict_on_batch(images[:1])),
        ("ascent, 1 filter, 30 steps",
         lambda model, layer: cnnviz.ascend_filters(model, layer, [0], image_size=image_size),
         lambda model, layer: recipe_ascent(model, layer, [0], image_size)),
    )  # fmt: skip
    for what, ours, recipe in pairs:

        def made(method):
            return lambda: method(*build(name, image_size))

        building, *taken = in_turn(
            lambda: build(name, image_size), made(recipe), made(ours), rounds=4
        )
        taken = [one - building for one in taken]
        yield f"first call, {what}: cnnviz / recipe = {taken[1] / taken[0]:.2f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("shipped", "vgg16"), default="shipped")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--filters", type=int, default=64)
    options = parser.parse_args()
    size = options.image_size
    model, layer_name = build(options.model, size)
    filters = np.arange(options.filters)
    images = np.random.default_rng(0).uniform(0, 255, (PICTURES, size, size, 3)).astype(np.float32)
    print(f"{options.model}, {size} pixels, {layer_name}; TensorFlow {tf.__version__}, "
          f"Keras {keras.__version__}", flush=True)  # fmt: skip
    for rows in (
        activation_rows(model, images),
        grad_cam_rows(model, images),
        step_cost(model, layer_name, size, filters),
        ascent_rows(model, layer_name, size, filters),
        first_calls(options.model, size, images),
    ):
        for row in rows:
            print(row, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory of all this: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
