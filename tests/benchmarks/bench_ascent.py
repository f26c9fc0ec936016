"""Measure what each part of the ascent brings, over all convolutions of two models.

    python tests/benchmarks/bench_ascent.py

prints the table of `docs/results.md` in about ten minutes on two cores. VGG16 has random weights,
drawn so that its channels are active.

For each variant: the share of filters with an image ("ok"); the activation as a ratio to the
default, geometric mean over filters; how much of it is left when the image is blurred by one pixel;
the total variation, in gray levels between neighboring pixels; and the seconds.
"""

import time

import numpy as np
from bench_looks import build
from scipy.ndimage import gaussian_filter

import cnnviz
from cnnviz import filter_ascent

FILTERS = {"shipped": 16, "vgg16": 4}  # of each layer, evenly spaced
SIZE = 64
DEFAULT = filter_ascent.COARSE_TO_FINE
VARIANTS = {
    "default: smoothness 1, 1.75 to 0.25; jitter 4, 30 steps": {},
    "smoothness 1 in all steps": {"coarse_to_fine": (1, 1)},
    "smoothness 1.5 to 0.5": {"coarse_to_fine": (1.5, 0.5)},
    "smoothness 2 to 0": {"coarse_to_fine": (2, 0)},
    "smoothness 1.5 in all steps": {"coarse_to_fine": (1.5, 1.5)},
    "neither": {"smoothness": 0, "jitter": 0},
    "only jitter": {"smoothness": 0},
    "only smoothness": {"jitter": 0},
    "smoothness 0.5": {"smoothness": 0.5},
    "smoothness 1.5": {"smoothness": 1.5},
    "jitter 2": {"jitter": 2},
    "jitter 8": {"jitter": 8},
    "steps of 0.025": {"step_size": 0.025},
    "steps of 0.1": {"step_size": 0.1},
    "15 steps": {"steps": 15},
    "60 steps": {"steps": 60},
}


def responses(model, layer_name, images, filters):
    maps = cnnviz.extract_activations(model, images, layer_name)[layer_name]
    return maps.mean((1, 2))[np.arange(len(filters)), filters]


def measure(model, layer_names, options, filters_each):
    """Of all filters: (ok, activation, activation when blurred, total variation); and seconds."""
    options = dict(options)
    filter_ascent.COARSE_TO_FINE = options.pop("coarse_to_fine", DEFAULT)
    rows, taken = [], 0.0
    for name in layer_names:
        count = model.get_layer(name).filters
        filters = np.unique(np.linspace(0, count - 1, filters_each).astype(int))
        start = time.perf_counter()
        result = cnnviz.ascend_filters(model, name, filters, image_size=SIZE, **options)
        taken += time.perf_counter() - start
        blurred = gaussian_filter(result.images, (0, 1, 1, 0), mode="nearest")
        variation = sum(
            np.abs(np.diff(result.images, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)
        )
        rows.append(
            np.stack(
                [
                    np.array(result.verdicts) == "ok",
                    result.activations,
                    responses(model, name, blurred, filters),
                    variation / 2,
                ]
            )
        )
    return np.concatenate(rows, axis=1), taken


def main():
    for which, each in FILTERS.items():
        model, _ = build(which, SIZE)
        names = cnnviz.convolution_layers(model)
        print(f"\n{which}, {len(names)} layers, {SIZE} pixels", flush=True)
        print("| variant | ok | activation | left when blurred | variation | seconds |")
        print("| --- | --- | --- | --- | --- | --- |")
        measure(model, names, {}, each)  # traced before the seconds count
        base, _ = measure(model, names, {}, each)
        for variant, options in VARIANTS.items():
            (ok, reached, blurred, variation), taken = measure(model, names, options, each)
            both = (ok > 0) & (base[0] > 0) & (reached > 0) & (base[1] > 0)
            ratio = np.exp(np.log(reached[both] / base[1][both]).mean())
            left = np.clip(blurred[both] / reached[both], 0, None).mean()
            print(
                f"| {variant} | {ok.mean():.1%} | {ratio:.2f} | {left:.2f} | "
                f"{variation[both].mean():.1f} | {taken:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
