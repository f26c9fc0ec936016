"""(what a figure shows) -> its alternative text: what is read out to a person who cannot see it.

A function for each of `figures`, with the same arguments; those that change nothing are `_`.
"""

import collections
import itertools

import numpy as np

MOST_NAMED = 12  # things of a row; the rest are counted
MOST_MISTAKES = 4  # kinds of mistakes of a confusion matrix, the most frequent ones


def images(images, titles=None, **_):
    images = [images] if getattr(images, "ndim", 4) == 3 else list(images)
    sizes = {np.shape(image)[:2] for image in images}
    size = " of {}x{} pixels".format(*sizes.pop()) if len(sizes) == 1 else ""
    text = counted(len(images), "picture") + size
    return f"{text}." if titles is None else f"{text}: {_listed(titles)}."


def learning_curves(history):
    history = getattr(history, "history", history)
    sentences = [f"Learning curves over {counted(len(history['loss']), 'epoch')}."]
    for name, scale, unit, sign in (("loss", 1, "", 1), ("accuracy", 100, "%", -1)):
        training = np.asarray(history[name], float) * scale
        validation = np.asarray(history[f"val_{name}"], float) * scale
        best = np.where(np.isfinite(validation), sign * validation, np.inf).argmin()
        sentences.append(
            f"The validation {name} goes from {validation[0]:.3g}{unit} to "
            f"{validation[-1]:.3g}{unit}, best in epoch {best + 1} with "
            f"{validation[best]:.3g}{unit}; the training {name} from {training[0]:.3g}{unit} to "
            f"{training[-1]:.3g}{unit}."
        )
    return " ".join(sentences)


def calibration(bins, error):
    _, shares, confidences, right = bins
    largest = np.argmax(shares)
    return (
        f"Reliability diagram: the expected calibration error is {error:.3f}. Of the fullest bin, "
        f"{shares[largest]:.0%} of the pictures, {right[largest]:.1%} are right where the model is "
        f"{confidences[largest]:.1%} sure."
    )


def confusion_matrix(labels, predicted, class_names):
    pairs = np.stack([np.asarray(labels, int), np.asarray(predicted, int)], axis=1)
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    right = len(pairs) - len(wrong)
    kinds = collections.Counter(map(tuple, wrong.tolist())).most_common(MOST_MISTAKES)
    mistakes = [
        f"{name_of_class(class_names, label)} taken for {name_of_class(class_names, answer)} "
        f"{counted(times, 'time')}"
        for (label, answer), times in kinds
    ]
    share = f" ({right / len(pairs):.1%})" if len(pairs) else ""
    most = "Mistakes" if len(set(map(tuple, wrong.tolist()))) == len(kinds) else "Most mistakes"
    return (
        f"Confusion matrix: {right} of {counted(len(pairs), 'picture')} right{share}. "
        f"{most}: {', '.join(mistakes) or 'none'}."
    )


def activations(feature_maps, layer_name, *, dead=None):
    feature_maps = np.asarray(feature_maps, np.float32)
    height, width, channels = feature_maps.shape
    finite = np.isfinite(feature_maps)
    whole = finite.all((0, 1))
    highest = np.where(finite, feature_maps, -np.inf).max((0, 1))
    lowest = np.where(finite, feature_maps, np.inf).min((0, 1))
    flat = int((whole & (highest <= lowest)).sum())
    marked = "" if dead is None else f", {int(np.sum(dead))} marked as dead"
    marked += "" if whole.all() else f", {int((~whole).sum())} with NaN or infinity"
    span = f"The values lie in {lowest.min():.3g} to {highest.max():.3g}, the highest in channel"
    return (
        f"What layer {layer_name} puts out for one picture: {counted(channels, 'channel')} of "
        f"{height}x{width}, {flat} of one value only{marked}. "
        + (f"{span} {highest.argmax()}." if finite.any() else "None is finite.")
    )


def filters(result, **_):
    nothing = [
        f"{index} ({verdict})"
        for index, verdict in zip(result.filters, result.verdicts, strict=True)
        if verdict != "ok"
    ]
    before, after = np.median(result.start_activations), np.median(result.activations)
    return (
        f"What excites filters of layer {result.layer_name}: "
        f"{counted(len(result.filters), 'picture')} made by gradient ascent, with a median "
        f"activation of {after:.3g}, and {before:.3g} on the noise before. "
        f"Nothing to see: {_listed(nothing) or 'none'}."
    )


def exciting_crops(result, *, ascended=None, **_):
    rows, count, height, width = result.crops.shape[:4]
    strongest = [
        f"{index} ({most:.3g})"
        for index, most in zip(result.filters, result.activations.max(axis=1), strict=True)
    ]
    beside = "" if ascended is None else ", beside their ascended pictures"
    return (
        f"The {counted(count, 'piece')} of real pictures, {height}x{width} pixels, that excite "
        f"each of {counted(rows, 'filter')} of layer {result.layer_name} most{beside}. Filters "
        f"and their highest activation: {_listed(strongest)}."
    )


def heat_maps(images, results, class_names, *, titles=None, names=None, **_):
    results = [results] if hasattr(results, "maps") else list(results)
    pictures = counted(len(results[0].maps), "picture")
    sentences = [f"Heat maps of {pictures}{'' if titles is None else ': ' + _listed(titles)}."]
    for place, result in enumerate(results):
        classes = dict.fromkeys(name_of_class(class_names, index) for index in result.class_index)
        of = "" if names is None else f" ({names[place]})"
        places = [
            f"{_place(evidence, verdict)} ({score:+.2f} logit)"
            for evidence, verdict, score in zip(
                result.maps, result.verdicts, result.scores, strict=True
            )
        ]
        sentences.append(
            f"Strongest evidence of {result.method} at {result.layer_name}{of} for "
            f"{', '.join(classes)}: {_listed(places)}."
        )
    return " ".join(sentences)


def exploration(
    image,
    feature_map,
    ascended,
    evidence,
    *,
    layer_name,
    channel,
    class_name="",
    title="picture",
    **_,
):
    feature_map = np.asarray(feature_map)
    sentences = [
        f"{title}. Channel {channel} of {layer_name} puts out {feature_map.shape[0]}x"
        f"{feature_map.shape[1]} values in {feature_map.min():.3g} to {feature_map.max():.3g}, "
        f"the highest {_place(feature_map, 'ok')}."
    ]
    if isinstance(ascended, str):
        sentences.append(f"No ascended picture: {ascended}.")
    else:
        sentences.append(
            f"Its ascended picture ({ascended.verdicts[0]}) has a mean activation of "
            f"{ascended.activations[0]:.3g}, and {ascended.start_activations[0]:.3g} before."
        )
    if isinstance(evidence, str):
        sentences.append(f"No heat map: {evidence}.")
    else:
        sentences.append(
            f"Strongest evidence of {evidence.method} for {class_name}: "
            f"{_place(evidence.maps[0], evidence.verdicts[0])} ({evidence.scores[0]:+.2f} logit)."
        )
    return " ".join(sentences)


def architecture(shapes, *, title=None):
    kernels = [shape for shape in shapes if "Conv" in shape.kind and len(shape.shape) == 3]
    stages = []
    for size, run in itertools.groupby(kernels, lambda shape: shape.shape[:2]):
        channels = sorted({shape.shape[2] for shape in run})
        stages.append(
            "{}x{} with ".format(*size) + " to ".join(map(str, channels[:1] + channels[1:][-1:]))
        )
    additions = sum(shape.kind == "Add" for shape in shapes)
    return (
        f"{title or 'Architecture'}: {counted(len(kernels), 'convolution')} and "
        f"{counted(additions, 'addition')} with "
        f"{counted(sum(shape.parameters for shape in shapes), 'parameter')}. Feature maps of the "
        f"convolutions and their channels: {_listed(stages)}."
    )


def map_trust(result):
    known = [place for place, name in enumerate(result.methods) if name not in _KNOWING_NOTHING]
    best = []
    for measure, lowest in _MEASURES.items():
        values = np.asarray(getattr(result, measure), float)[known]
        if np.isfinite(values).any():
            place = np.nanargmin(np.abs(values)) if lowest else np.nanargmax(values)
            best.append(f"{measure} {values[place]:.2f} ({result.methods[known[place]]})")
    return (
        f"How far the heat maps of {counted(len(known), 'method')} can be trusted: "
        f"{_listed(result.methods[place] for place in known)}. "
        f"The best in each measure: {', '.join(best)}."
    )


_KNOWING_NOTHING = ("random", "centre")
_MEASURES = {  # and whether low is good
    "focus": False,
    "pointing": False,
    "deletion": True,
    "insertion": False,
    "survival": True,
}


def census(result):
    kinds = collections.Counter(
        "copy" if verdict.startswith("copy") else verdict
        for layer in result.layers
        for verdict in layer.verdicts
    )
    idle = [len(layer.verdicts) - layer.count("ok") for layer in result.layers]
    worst = result.layers[int(np.argmax(idle))]
    most = f" Most that are not ok: {max(idle)} of {len(worst.verdicts)} in {worst.layer_name}."
    return (
        f"What {counted(kinds.total(), 'channel')} of {counted(len(idle), 'layer')} did on "
        f"{counted(result.pictures, 'picture')}: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        + f".{most if max(idle) else ''}"
    )


def mistakes(result, class_names, **_):
    if not len(result.images):
        return "No mistake was made."
    rows = np.arange(len(result.images))
    given = result.probabilities[rows, result.labels]
    taken = [
        f"{name_of_class(class_names, label)} (given {probability:.1%}) for "
        f"{name_of_class(class_names, answer)}"
        for label, answer, probability in zip(result.labels, result.predicted, given, strict=True)
    ]
    count = result.neighbours.shape[1]
    near = f" and {counted(count, 'training picture')} most like it" if count else ""
    return (
        f"The most confident mistakes, each with the evidence for its label and for the "
        f"answer{near}. Taken: {_listed(taken)}."
    )


def changes(result, **_):
    most = int(np.argmax(result.weights))
    same = int((np.asarray(result.weights) == 0).sum())
    moved = "The weights of no layer moved."
    if result.weights[most] > 0:
        moved = (
            f"The weights moved most in {result.layer_names[most]}, by {result.weights[most]:.1%} "
            f"of their size; those of {same} of {counted(len(result.weights), 'layer')} are the "
            "same."
        )
    return (
        f"What changed between two states of a network. {moved} Below, what filters "
        f"{_listed(result.filters)} of {result.layer_name} want to see, and their maps of the "
        "first picture, before and after."
    )


def name_of_class(class_names, index):
    """The name of a class; its number where there are fewer names."""
    return class_names[index] if index < len(class_names) else f"class {index}"


def counted(count, noun):
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _listed(items):
    items = [str(item) for item in items]
    more = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _place(evidence, verdict):
    """Where in a map (h, w) the strongest evidence lies: "top left", or why nowhere."""
    if verdict != "ok":
        return verdict
    row, column = np.unravel_index(np.abs(evidence).argmax(), evidence.shape)
    height, width = evidence.shape
    vertical = ("top", "", "bottom")[int((row + 0.5) * 3 // height)]
    horizontal = ("left", "", "right")[int((column + 0.5) * 3 // width)]
    against = "against it, " if evidence[row, column] < 0 else ""
    return against + (" ".join(filter(None, (vertical, horizontal))) or "centre")
