"""Measure a classifier and its heat maps on separated photographs.

    python tests/benchmarks/bench_photographs.py photos
    python tests/benchmarks/bench_photographs.py photos --model other.keras

prints the documented numbers in about five minutes on two cores. `photos` comes from
data_separator.py; everything is measured on its validation and test splits, which the shipped
classifier was not trained on.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnviz
from cnnviz.diagnosis.trust import focus, make_mosaics
from cnnviz.grad_cam import METHODS
from cnnviz.layers import convolution_layers

SEEDS = (0, 1, 2)
FLIPPED = 0.05  # share of the labels
SIZES = (96, 112, 128, 144, 160, 176, 192)


def read(photos, image_size, *names):
    """All images and labels of some splits: ((N, H, W, 3), (N,))."""
    splits = [cnnviz.load_split(photos / name, image_size=image_size) for name in names]
    batches = [batch for split in splits for batch in split.as_numpy_iterator()]
    return tuple(np.concatenate(both) for both in zip(*batches, strict=True))


def sizes(model, photos):
    """Its accuracy at several image sizes, on the validation split alone."""
    for size in SIZES:
        images, labels = read(photos, size, "validation")
        plain = cnnviz.class_probabilities(model, images)
        mirrored = (plain + cnnviz.class_probabilities(model, images[:, :, ::-1])) / 2
        counts = [(one.argmax(axis=1) == labels).sum() for one in (plain, mirrored)]
        loss = -np.log(plain[np.arange(len(labels)), labels]).mean()
        yield (
            f"validation at {size} px: {counts[0]} of {len(labels)} correct, mirror averaged "
            f"{counts[1]}, cross-entropy {loss:.3f}"
        )


def tiles(model):
    """How many filters of each layer have an optimized image."""
    for name in convolution_layers(model):
        verdicts = np.array(cnnviz.ascend_filters(model, name).verdicts)
        counts = {word: int((verdicts == word).sum()) for word in ("ok", "no gain", "dead")}
        yield f"ascent of {name}, {len(verdicts)} filters: {counts}"


def faults(model, images, labels):
    """How many flipped labels are ranked first, and which faults of the inputs are found."""
    count = round(FLIPPED * len(labels))
    for seed in SEEDS:
        wrong = np.random.default_rng(seed).choice(len(labels), count, replace=False)
        flipped = labels.copy()
        flipped[wrong] = 1 - flipped[wrong]
        first = cnnviz.suspect_labels(model, (images, flipped)).ranking[: len(labels) // 10]
        found = np.isin(wrong, first).sum()
        yield f"flipped labels, seed {seed}: {found} of {count} in the first tenth"
    for name, faulty, given in (
        ("as they are", images, labels),
        ("0..1", images / 255, labels),
        ("BGR", images[..., ::-1], labels),
        ("labels in another order", images, 1 - labels),
    ):
        order = np.random.default_rng(0).permutation(len(labels))  # both classes among the first
        report = cnnviz.check_inputs(model, (faulty[order], given[order]))
        yield f"inputs, {name}: {report.accuracy:.1%} -> {report.mended_accuracy:.1%}\n{report}"


def maps(model, images, labels):
    """Where the evidence lies on mosaics, and how far maps can be trusted."""
    for own in (2, 1):
        mosaics = make_mosaics(model, images, labels, own, 200)
        shares = {
            method: round(float(np.nanmean(focus(model, *mosaics, method=method))), 3)
            for method in METHODS
        }
        yield f"share of the evidence on {own} of 4, 200 mosaics: {shares}"
    some = np.random.default_rng(0).choice(len(labels), 120, replace=False)
    trust = cnnviz.map_trust(model, images[some], labels[some])
    yield f"on 120 images:\n{trust}\n{trust.to_frame().round(3)}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    parser.add_argument("--model", type=Path, help="a .keras file; by default the shipped one")
    parser.add_argument("--image-size", type=int, default=128)
    options = parser.parse_args()
    model = cnnviz.load_model(options.model) if options.model else cnnviz.load_pretrained()
    images, labels = read(options.photos, options.image_size, "validation", "test")
    print(f"{len(labels)} photographs at {options.image_size} px", flush=True)
    census = cnnviz.filter_census(model, images)
    for rows in (
        sizes(model, options.photos),
        faults(model, images, labels),
        maps(model, images, labels),
        (census, census.to_frame().to_string()),
        tiles(model),
    ):
        for row in rows:
            print(row, flush=True)


if __name__ == "__main__":
    main()
