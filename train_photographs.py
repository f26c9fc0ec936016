"""Train the classifier on folders of photographs, as the shipped weights were made.

    python train_photographs.py photos quick.keras --recipe quick

`photos` comes from data_separator.py. After a kill, the same command continues after the last full
epoch, or after the training if the best weights (`quick.training.keras`) and the history
(`quick.training.keras.csv`) are there. The curves go to `quick.training.png`.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import binomtest

import cnnviz
from cnnviz.diagnosis import expected_calibration_error
from cnnviz.model import calibrate, fold_batch_normalization
from cnnviz.recipe import BATCH_SIZE, RECIPES, STORED_SIZES, USED_SIZES
from cnnviz.training import read_history

CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the processor is taken to have no bfloat16


def main():
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    parser.add_argument("model", type=Path, help="the .keras file to write")
    parser.add_argument("--recipe", choices=RECIPES, default="best")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.model.suffix != ".keras":
        parser.error(f"model (='{given.model}') must end in '.keras'")

    def load(split, size, **more):
        more |= {"image_size": size, "batch_size": BATCH_SIZE, "cache": True}
        return cnnviz.load_split(given.photos / split, **more)

    recipe, stored = RECIPES[given.recipe], STORED_SIZES[given.recipe]
    used = {split: load(split, USED_SIZES[given.recipe]) for split in ("validation", "test")}
    data = load("train", stored, shuffle=True, seed=given.seed), load("validation", stored)
    keras.utils.set_random_seed(given.seed)
    model = cnnviz.build_model(precision=fastest_precision())
    checkpoint, epochs = given.model.with_suffix(".training.keras"), len(recipe["image_sizes"])
    if checkpoint.exists() and not Path(f"{checkpoint}.resume").exists():
        print(f"{checkpoint} is trained already")
        model.load_weights(checkpoint)
        history = read_history(checkpoint)
    else:
        more = {"epochs": epochs, "seed": given.seed, "checkpoint": checkpoint, "verbose": 2}
        history = cnnviz.train(model, *data, **recipe, **more).history
    if len(history.get("loss", ())) < epochs:
        parser.exit(1, f"{given.model} is not written: the training has not ended\n")
    cnnviz.figures.draw_learning_curves(history).savefig(given.model.with_suffix(".training.png"))
    folded = fold_batch_normalization(model)
    print(f"temperature {calibrate(folded, used['validation']):.2f}")
    cnnviz.save_model(folded, given.model)
    for split, photographs in used.items():
        report(split, folded, photographs)


def fastest_precision():
    """The Keras dtype policy in which this machine trains fastest without losing accuracy."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        has_bfloat16 = details.get("compute_capability", (0, 0)) >= (8, 0)  # from Ampere on
    else:
        flags = CPU_INFO.read_text().split() if CPU_INFO.exists() else ()
        has_bfloat16 = not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def report(split, model, data):
    """Print accuracy and calibration error of the model, also averaged over mirrored images."""
    images, labels = map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))
    plain = cnnviz.class_probabilities(model, images)
    mirrored = (plain + cnnviz.class_probabilities(model, images[:, :, ::-1])) / 2
    for name, probabilities in ((split, plain), (f"{split}, mirror averaged", mirrored)):
        n_correct, n = int((probabilities.argmax(axis=1) == labels).sum()), len(labels)
        low, high = binomtest(n_correct, n).proportion_ci(method="wilson")
        error = expected_calibration_error(probabilities, labels)
        accuracy = f"accuracy {n_correct / n:.1%} ({low:.1%} to {high:.1%})"
        print(f"{name}: {n_correct} of {n} correct, {accuracy}, calibration error {error:.3f}")


if __name__ == "__main__":
    main()
