"""(separated photographs, a classifier) -> what is known of it and of its heat maps, in numbers.

    python tests/benchmarks/bench_photographs.py photos
    python tests/benchmarks/bench_photographs.py photos --model other.keras

prints the README's figures on photographs in about five minutes on two cores. `photos` comes from
data_separator.py; all that is measured here is on its validation and test part, which the shipped
classifier was not trained on.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnviz
from cnnviz.diagnosis.trust import focus, make_mosaics
from cnnviz.grad_cam import METHODS

SEEDS = (0, 1, 2)
TURNED = 0.05  # share of the labels that are turned round
SIZES = (96, 112, 128, 144, 160, 176, 192)


def parts(photos, image_size, *names):
    """All pictures of some parts: ((N, H, W, 3), (N,))."""
    batches = [
        batch
        for name in names
        for batch in cnnviz.load_split(
            photos / name, image_size=image_size, batch_size=64
        ).as_numpy_iterator()
    ]
    return tuple(np.concatenate(both) for both in zip(*batches, strict=True))


def sizes(model, photos):
    """How right it is at several picture sizes, on the validation part alone."""
    for size in SIZES:
        images, labels = parts(photos, size, "validation")
        plain = cnnviz.class_probabilities(model, images)
        mirrored = (plain + cnnviz.class_probabilities(model, images[:, :, ::-1])) / 2
        counts = [(one.argmax(axis=1) == labels).sum() for one in (plain, mirrored)]
        loss = -np.log(plain[np.arange(len(labels)), labels]).mean()
        yield (
            f"validation at {size} px: {counts[0]} of {len(labels)} right, mirror averaged "
            f"{counts[1]}, cross-entropy {loss:.3f}"
        )


def tiles(model):
    """How many filters of each layer have a picture."""
    for name in cnnviz.convolution_layers(model):
        verdicts = np.array(cnnviz.ascend_filters(model, name).verdicts)
        counts = {word: int((verdicts == word).sum()) for word in ("ok", "no gain", "dead")}
        yield f"ascent of {name}, {len(verdicts)} filters: {counts}"


def faults(model, images, labels):
    """How many of the labels turned round stand first, and which faults of the input are found."""
    count = round(TURNED * len(labels))
    for seed in SEEDS:
        wrong = np.random.default_rng(seed).choice(len(labels), count, replace=False)
        turned = labels.copy()
        turned[wrong] = 1 - turned[wrong]
        first = cnnviz.suspect_labels(model, (images, turned)).ranking[: len(labels) // 10]
        found = np.isin(wrong, first).sum()
        yield f"labels turned round, seed {seed}: {found} of {count} in the first tenth"
    for name, faulty, given in (
        ("as they are", images, labels),
        ("0..1", images / 255, labels),
        ("BGR", images[..., ::-1], labels),
        ("labels the wrong way round", images, 1 - labels),
    ):
        order = np.random.default_rng(0).permutation(len(labels))  # both classes among the first
        report = cnnviz.check_inputs(model, (faulty[order], given[order]))
        yield f"inputs, {name}: {report.accuracy:.1%} -> {report.mended_accuracy:.1%}\n{report}"


def maps(model, images, labels):
    """Where the evidence lies on mosaics, and how far maps can be trusted."""
    for own in (2, 1):
        mosaics = make_mosaics(model, images, labels, own=own, count=200)
        shares = {method: round(focus(model, mosaics, method=method), 3) for method in METHODS}
        yield f"share of the evidence on {own} of 4, 200 mosaics: {shares}"
    some = np.random.default_rng(0).choice(len(labels), 120, replace=False)
    yield f"on 120 pictures:\n{cnnviz.map_trust(model, images[some], labels[some])}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder made by data_separator.py")
    parser.add_argument("--model", type=Path, help="a .keras file; the shipped one unless told")
    parser.add_argument("--image-size", type=int, default=128)
    options = parser.parse_args()
    model = cnnviz.load_model(options.model) if options.model else cnnviz.load_pretrained()
    images, labels = parts(options.photos, options.image_size, "validation", "test")
    print(f"{len(labels)} photographs at {options.image_size} px", flush=True)
    for rows in (
        sizes(model, options.photos),
        faults(model, images, labels),
        maps(model, images, labels),
        (str(cnnviz.filter_census(model, images)),),
        tiles(model),
    ):
        for row in rows:
            print(row, flush=True)


if __name__ == "__main__":
    main()
