"""(separated photographs) -> what training costs, as ratios of things measured in the same run.

    python tests/benchmarks/bench_training.py photos

prints a table in about ten minutes on two cores; nothing else should run beside it. `photos` comes
from data_separator.py. Each pair is measured in turn, several times, and the best of each counts:
what else the machine does only ever adds time.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import cnnviz
from cnnviz import training
from cnnviz.data import list_split, untuned
from cnnviz.optimizer import ConvolutionMuon
from cnnviz.recipe import BATCH_SIZE, KEPT_SIZES, ORTHOGONALIZING_STEPS

KEPT_SIZE = KEPT_SIZES["best"]
ROUNDS = 3


def original_recipe():
    """The small network from Chollet's book at 150x150: what this work is usually started from."""
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


def original_epoch():
    """Seconds that the original recipe takes for 18,750 photographs in batches of 50."""
    model = original_recipe()
    step = min(seconds_a_step(model, 50, 150, 8) for _ in range(ROUNDS))
    return 375 * step, f"{50 / step:.1f} photographs/s, {model.count_params() / 1e6:.2f} million"


def throughput(image_size, batches=80):
    """Photographs a second of `train`, and of `train_on_batch` on one batch kept in memory.

    `train` cuts its pictures out of larger ones and varies them, as it does with photographs.
    """
    shape = (16 * BATCH_SIZE, KEPT_SIZE, KEPT_SIZE, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(len(images)) % 2))
    data = data.batch(BATCH_SIZE).map(lambda x, y: (tf.cast(x, tf.float32), y))
    data, validation = data.repeat(batches // 16), data.take(1)
    training.STEPS_WORTH_COMPILING = 0  # as in a training of usual length
    model, bare = cnnviz.build_model(precision="auto"), cnnviz.build_model(precision="auto")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    bare.compile(
        ConvolutionMuon(1e-3, ns_steps=ORTHOGONALIZING_STEPS),
        loss,
        metrics=["accuracy"],
        jit_compile=training.is_faster_compiled(bare, steps=batches),
    )
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
    """Seconds to read the training photographs for the first time, and to decode them bare.

    Each without and with keeping them: to get fresh memory can cost as much as to fill it.
    """
    paths, _ = list_split(photos / "train")

    def decode(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    bare = tf.data.Dataset.from_tensor_slices(paths)
    bare = untuned(bare.map(decode, num_parallel_calls=multiprocessing.cpu_count()))
    options = {"image_size": KEPT_SIZE, "batch_size": BATCH_SIZE}
    seconds = {}
    for _ in range(ROUNDS):
        for cache in (False, True):
            data = cnnviz.load_split(photos / "train", cache=cache, **options)
            for name, dataset in (("bare", bare.cache() if cache else bare), ("read", data)):
                start = time.perf_counter()
                for _ in dataset:
                    pass
                seconds.setdefault((name, cache), []).append(time.perf_counter() - start)
    return {case: min(taken) for case, taken in seconds.items()}, len(paths)


def peak_memory(photos, share, cache, results):
    """GiB that a process needs to train one epoch on a share of the photographs."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cats", "dogs"):
            (Path(folder) / name).mkdir()
            files = sorted((photos / "train" / name).iterdir())
            for path in files[: int(share * len(files))]:
                (Path(folder) / name / path.name).symlink_to(path.resolve())
        results.put(_train_two_epochs(folder, cache))


def _train_two_epochs(folder, cache):
    options = {"image_size": 128, "batch_size": BATCH_SIZE}
    data = cnnviz.load_split(folder, shuffle=True, cache=cache, **options)
    model = cnnviz.build_model(precision="auto")
    cnnviz.train(model, data, data.take(1), epochs=2, image_sizes=(64, 128), verbose=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    parser.add_argument("--history", type=Path, help="the CSV of a training, for its time to 93 %%")
    parser.add_argument("--memory", action="store_true", help="also the peak memory: ten minutes")
    options = parser.parse_args()

    epoch, what = original_epoch()
    print(f"one epoch of the original recipe: {epoch:.0f} s ({what})", flush=True)
    if options.history:
        history = cnnviz.callbacks.read_history(options.history)
        reached = np.array(history["val_accuracy"]) >= 0.93
        needed = sum(history["seconds"][: int(reached.argmax()) + 1])
        print(
            f"to 93 % on validation: {needed:.0f} s, {needed / epoch:.2f} original epochs"
            if reached.any()
            else "93 % on validation was not reached"
        )
    for image_size in (64, 128):
        trained, alone = throughput(image_size)
        print(
            f"train at {image_size} px: {trained:.0f} photographs/s, train_on_batch {alone:.0f}, "
            f"ratio {trained / alone:.2f}",
            flush=True,
        )
    seconds, count = reading(options.photos)
    for cache, how in ((False, "not kept"), (True, "kept in memory")):
        read, bare = seconds["read", cache], seconds["bare", cache]
        print(f"reading {count:,} photographs, {how}: {read:.1f} s, bare decoding {bare:.1f} s, "
              f"ratio {read / bare:.2f}", flush=True)  # fmt: skip
    if options.memory:
        context = multiprocessing.get_context("spawn")
        for share, cache in ((1.0, True), (0.5, True), (1.0, False), (0.5, False)):
            results = context.Queue()
            process = context.Process(
                target=peak_memory, args=(options.photos, share, cache, results)
            )
            process.start()
            process.join()
            peak = f"{results.get():.2f} GiB" if process.exitcode == 0 else "killed"
            print(f"peak memory, {share:.0%} of the photographs, cache={cache}: {peak}", flush=True)


if __name__ == "__main__":
    main()
