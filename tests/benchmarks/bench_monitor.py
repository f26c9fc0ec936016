"""What a `Monitor` costs: seconds of its callbacks as a share of an epoch of 100 steps.

    python tests/benchmarks/bench_monitor.py

Both are measured in one training of the shipped architecture on drawn pets, with validation data;
the first epoch, in which everything is traced, stands apart.
"""

import argparse
import time

import keras
import numpy as np

import cnnviz
from cnnviz.monitor import Monitor

STEPS, BATCH = 100, 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=96)
    options = parser.parse_args()
    pets = cnnviz.drawn_pets(256, image_size=options.image_size)
    model = cnnviz.load_pretrained()
    model.compile(keras.optimizers.SGD(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))
    monitor = Monitor(pets.images[:8], pets.labels[:8], validation_data=pets.images)
    own, whole, end = [], [], monitor.on_epoch_end

    def timed(epoch, logs=None):
        start = time.perf_counter()
        end(epoch, logs)
        own.append(time.perf_counter() - start)

    monitor.on_epoch_end = timed
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: whole.append(time.perf_counter()),
        on_train_end=lambda *_: whole.append(time.perf_counter()),
    )
    rows = np.arange(STEPS * BATCH) % len(pets.images)
    model.fit(
        pets.images[rows],
        pets.labels[rows],
        batch_size=BATCH,
        epochs=options.epochs,
        callbacks=[monitor, clock],
        verbose=0,
    )
    for epoch, (seconds, all_of_it) in enumerate(zip(own, np.diff(whole), strict=True), 1):
        share = seconds / (all_of_it - seconds)
        print(f"epoch {epoch}: {all_of_it:.1f} s, monitor {seconds:.2f} s, {share:.1%} of the rest")
    print(monitor)


if __name__ == "__main__":
    main()
