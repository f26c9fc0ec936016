"""What a `Monitor` costs: seconds of its callbacks as a share of an epoch of 100 steps.

    python tests/benchmarks/bench_monitor.py

In the first epoch everything is traced.
"""

import time

import keras
import numpy as np

import cnnviz

STEPS, BATCH, EPOCHS = 100, 32, 4


class Timed(cnnviz.Monitor):
    """A monitor that prints the seconds of each epoch and of its own work."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        start = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        rest, own = start - self.begin, time.perf_counter() - start
        print(f"epoch {epoch + 1}: {rest:.1f} s, monitor {own:.2f} s, {own / rest:.1%}")


def main():
    pets = cnnviz.drawn_pets(256, image_size=96)
    model = cnnviz.load_pretrained()
    model.compile(keras.optimizers.SGD(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))
    monitor = Timed(pets.images[:8], pets.labels[:8], validation_data=pets.images)
    rows = np.arange(STEPS * BATCH) % len(pets.images)
    data = pets.images[rows], pets.labels[rows]
    model.fit(*data, batch_size=BATCH, epochs=EPOCHS, callbacks=[monitor], verbose=0)
    print(monitor)


if __name__ == "__main__":
    main()
