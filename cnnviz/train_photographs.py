"""Train the classifier on folders of photographs, as the shipped weights were made.

    python -m cnnviz.train_photographs photos cats_vs_dogs.keras
    python -m cnnviz.train_photographs photos quick.keras --recipe quick

`photos` comes from data_separator.py. After a kill, the same command continues after the last full
epoch. The best weights go to `quick.training.keras`, the history to `quick.training.keras.csv` and
its curves to `quick.training.png`. While the first two exist, they are not trained again.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from scipy.stats import binomtest

import cnnviz
from cnnviz.callbacks import read_history
from cnnviz.diagnosis import expected_calibration_error
from cnnviz.model import calibrate, fold_batch_normalization
from cnnviz.recipe import BATCH_SIZE, RECIPES, STORED_SIZES, USED_SIZES


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    parser.add_argument("model", type=Path, help="the .keras file to write")
    parser.add_argument("--recipe", choices=RECIPES, default="best")
    parser.add_argument("--precision", default="auto", help="auto, float32, mixed_bfloat16, ...")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.model.suffix != ".keras":
        parser.error(f"model (='{options.model}') must end in '.keras'")

    def load(split, size, **more):
        more |= {"image_size": size, "batch_size": BATCH_SIZE, "cache": True}
        return cnnviz.load_split(options.photos / split, **more)

    recipe, stored = RECIPES[options.recipe], STORED_SIZES[options.recipe]
    used = {split: load(split, USED_SIZES[options.recipe]) for split in ("validation", "test")}
    train_data = load("train", stored, shuffle=True, seed=options.seed)
    keras.utils.set_random_seed(options.seed)
    model = cnnviz.build_model(precision=options.precision)
    checkpoint, epochs = options.model.with_suffix(".training.keras"), len(recipe["image_sizes"])
    if checkpoint.exists() and not Path(f"{checkpoint}.resume").exists():
        print(f"{checkpoint} is trained already")
        model.load_weights(checkpoint)
        history = read_history(checkpoint)
    else:
        more = {"epochs": epochs, "seed": options.seed, "checkpoint": checkpoint, "verbose": 2}
        data = train_data, load("validation", stored)
        history = cnnviz.train(model, *data, **recipe, **more).history
    if len(history.get("loss", ())) < epochs:
        parser.exit(1, f"{options.model} is not written: the training has not ended\n")
    curves = cnnviz.figures.draw_learning_curves(history)
    curves.savefig(options.model.with_suffix(".training.png"))
    folded = fold_batch_normalization(model)
    print(f"temperature {calibrate(folded, used['validation']):.2f}")
    cnnviz.save_model(folded, options.model)
    for split, data in used.items():
        report(split, cnnviz.load_model(options.model, trusted=True), data)


def report(split, model, data):
    """Print accuracy and calibration error of the model, also averaged over mirrored images."""
    images, labels = (np.concatenate(both) for both in zip(*data.as_numpy_iterator(), strict=True))
    plain = cnnviz.class_probabilities(model, images)
    mirrored = (plain + cnnviz.class_probabilities(model, images[:, :, ::-1])) / 2
    for name, probabilities in (("", plain), (", mirror averaged", mirrored)):
        correct = int((probabilities.argmax(axis=1) == labels).sum())
        low, high = binomtest(correct, len(labels)).proportion_ci(method="wilson")
        error = expected_calibration_error(probabilities, labels)
        print(
            f"{split}{name}: {correct} of {len(labels)} correct, accuracy "
            f"{correct / len(labels):.1%} ({low:.1%} to {high:.1%}), calibration error {error:.3f}"
        )


if __name__ == "__main__":
    main()
