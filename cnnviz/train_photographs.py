"""(folders of photographs) -> the classifier, as the shipped weights were made.

    python train_photographs.py photos cats_vs_dogs.keras
    python train_photographs.py photos quick.keras --recipe quick

`photos` comes from data_separator.py. Stopped or killed, the same command goes on after the last
whole epoch. The history goes to `cats_vs_dogs.training.keras.csv`, its curves to
`cats_vs_dogs.training.png`.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from scipy.stats import binomtest

import cnnviz
from cnnviz.callbacks import history_file, read_history, resume_folder
from cnnviz.data import list_split
from cnnviz.diagnosis import expected_calibration_error
from cnnviz.recipe import BATCH_SIZE, FIRST_KERNELS, KEPT_SIZES, RECIPES, USED_SIZES


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
    for part in ("train", "validation", "test"):  # now, not after hours
        list_split(options.photos / part)

    keras.utils.set_random_seed(options.seed)
    data = {"image_size": USED_SIZES[options.recipe], "batch_size": BATCH_SIZE}
    photos = options.photos
    kept = data | {"image_size": KEPT_SIZES[options.recipe]}
    train = cnnviz.load_split(photos / "train", shuffle=True, seed=options.seed, **kept)
    validation = cnnviz.load_split(photos / "validation", **kept)
    kernels = FIRST_KERNELS[options.recipe]
    model = cnnviz.build_model(first_kernels=kernels, precision=options.precision)

    recipe = RECIPES[options.recipe]
    checkpoint, epochs = options.model.with_suffix(".training.keras"), len(recipe["image_sizes"])
    if is_done(checkpoint, epochs, options.model):  # an earlier command was stopped after that
        model.load_weights(checkpoint)
        history = read_history(history_file(checkpoint))
    else:
        told = recipe | {"epochs": epochs, "seed": options.seed, "checkpoint": checkpoint}
        history = cnnviz.train(model, train, validation, **told, verbose=2).history
        done = len(history.get("loss", ()))
        if done < epochs:
            parser.exit(1, f"{options.model} is not written: {done} of {epochs} epochs are done\n")
    curves = cnnviz.figures.draw_learning_curves(history)
    curves.savefig(options.model.with_suffix(".training.png"))
    folded = cnnviz.fold_batch_normalization(model)
    temperature = cnnviz.calibrate(folded, cnnviz.load_split(photos / "validation", **data))
    print(f"temperature {temperature:.2f}")
    cnnviz.save_model(folded, options.model)
    report(cnnviz.load_model(options.model), photos, data)


def is_done(checkpoint, epochs, model):
    """Whether a training of so many epochs ended there of which the file `model` is not made."""
    file = history_file(checkpoint)
    stopped = resume_folder(checkpoint).exists() or not file.exists()
    made = model.exists() and (stopped or model.stat().st_mtime > file.stat().st_mtime)
    return not (stopped or made) and len(read_history(file)["loss"]) == epochs


def report(model, photos, data):
    """Print how right and how well calibrated the model is on validation and test part."""
    for part in ("validation", "test"):
        batches = cnnviz.load_split(photos / part, **data).as_numpy_iterator()
        images, labels = (np.concatenate(both) for both in zip(*batches, strict=True))
        plain = cnnviz.class_probabilities(model, images)
        mirrored = (plain + cnnviz.class_probabilities(model, images[:, :, ::-1])) / 2
        for name, probabilities in (("", plain), (", mirror averaged", mirrored)):
            right = int((probabilities.argmax(axis=1) == labels).sum())
            low, high = binomtest(right, len(labels)).proportion_ci(method="wilson")
            error = expected_calibration_error(probabilities, labels)
            print(
                f"{part}{name}: {right} of {len(labels)} right, {right / len(labels):.1%} "
                f"({low:.1%} to {high:.1%}), expected calibration error {error:.3f}"
            )


if __name__ == "__main__":
    main()
