"""What training costs, as ratios of things measured in the same run.

    python tests/benchmarks/bench_training.py photos

prints a table in about ten minutes on two cores; nothing else should run beside it. `photos` comes
from data_separator.py. Each pair is measured in turn, several times, and the best of each counts:
what else the machine does only ever adds time.
"""

import argparse
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import cnnviz
from cnnviz.optimizer import ConvolutionMuon
from cnnviz.recipe import BATCH_SIZE, STORED_SIZES

STORED_SIZE = STORED_SIZES["best"]
ROUNDS = 3


def usual_recipe():
    """The small network from Chollet's book at 150x150, from which many start."""
    model = keras.Sequential([keras.Input((150, 150, 3)), keras.layers.Rescaling(1 / 255)])
    for filters in (32, 64, 128, 128):
        model.add(keras.layers.Conv2D(filters, 3, activation="relu"))
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(512, activation="relu"))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.RMSprop(1e-4), "binary_crossentropy")
    return model


def seconds_a_step(model, batch, image_size, steps):
    images = np.random.default_rng(0).uniform(0, 255, (batch, image_size, image_size, 3))
    images, labels = tf.constant(images, tf.float32), tf.constant(np.arange(batch) % 2)
    model.train_on_batch(images, labels)
    start = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(images, labels)
    return (time.perf_counter() - start) / steps


def usual_epoch():
    """Seconds that the usual recipe takes for 18,750 photographs in batches of 50."""
    model = usual_recipe()
    step = min(seconds_a_step(model, 50, 150, 8) for _ in range(ROUNDS))
    return 375 * step


def throughput(image_size, batches=80):
    """Photographs a second of `train`, and of `train_on_batch` on one batch kept in memory."""
    shape = (16 * BATCH_SIZE, STORED_SIZE, STORED_SIZE, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(len(images)) % 2))
    data = data.batch(BATCH_SIZE)
    data, validation = data.repeat(batches // 16), data.take(1)
    model, bare = cnnviz.build_model(), cnnviz.build_model()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    bare.compile(ConvolutionMuon(1e-3), loss, metrics=["accuracy"])
    options = {"epochs": 2, "image_sizes": (image_size,) * 2, "verbose": 0}
    trained, alone = [], []
    for _ in range(ROUNDS):
        history = cnnviz.train(model, data, validation, **options).history
        start = time.perf_counter()
        model.evaluate(validation, verbose=0)
        seconds = history["seconds"][1] - (time.perf_counter() - start)
        trained.append(batches * BATCH_SIZE / seconds)
        alone.append(BATCH_SIZE / seconds_a_step(bare, BATCH_SIZE, image_size, batches))
    return max(trained), max(alone)


def reading(photos):
    """Seconds to read the training photographs, and to decode them bare."""
    data = cnnviz.load_split(photos / "train", image_size=STORED_SIZE, batch_size=BATCH_SIZE)

    def decode(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    bare = tf.data.Dataset.from_tensor_slices(data.file_paths)
    bare = bare.map(decode, num_parallel_calls=os.cpu_count()).with_options(data.options())
    seconds = [], []
    for _ in range(ROUNDS):
        for dataset, taken in zip((data, bare), seconds, strict=True):
            start = time.perf_counter()
            for _ in dataset:
                pass
            taken.append(time.perf_counter() - start)
    return map(min, seconds)


def main():
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    options = parser.parse_args()
    print(f"one epoch of the usual recipe: {usual_epoch():.0f} s", flush=True)
    for image_size in (64, 128):
        trained, alone = throughput(image_size)
        speeds = f"{trained:.0f} photographs/s, train_on_batch {alone:.0f}"
        print(f"train at {image_size} px: {speeds}, ratio {trained / alone:.2f}", flush=True)
    read, bare = reading(options.photos)
    print(f"reading: {read:.1f} s, bare decoding {bare:.1f} s, ratio {read / bare:.2f}")


if __name__ == "__main__":
    main()
