"""Faults of an input pipeline are planted one by one, and found; right inputs raise no alarm."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnviz
from cnnviz.diagnosis.images import find_image_faults
from cnnviz.diagnosis.inputs import check_inputs

SIZE, N = 32, 120
CURE = r"`([^`]*\b[xy]\b[^`]*)`"  # Python for images or labels, in a sentence


@pytest.fixture(scope="module")
def exacting_model():
    """Red patches of 9x9 are class 1, green ones class 0; only in 0..255, and at one size.

    At half the size a patch does not fill the filter; beyond the range a third channel fires and
    drowns the others.
    """
    convolution = keras.layers.Conv2D(3, 9, padding="same", activation="relu", name="conv")
    steps = [keras.layers.Rescaling(1 / 127.5, offset=-1), convolution]
    steps += [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((None, None, 3)), *steps])
    kernel = np.zeros((9, 9, 3, 3), np.float32)
    kernel[..., :, 0], kernel[..., :, 1], kernel[..., :, 2] = [1, -1, 0], [-1, 1, 0], [1, 1, 1]
    convolution.set_weights([kernel / 81, np.array([-1.2, -1.2, -5], np.float32)])
    model.get_layer("head").set_weights([np.array([[9.0], [-9], [500]]), np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def patches():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, N).astype(np.int32)
    images = random.uniform(90, 166, (N, SIZE, SIZE, 3)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, SIZE - 12, 2)
        image[top : top + 12, left : left + 12] = [255, 0, 90] if label else [0, 255, 90]
    return images, labels


def as_dataset(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)


def accuracy(model, images, labels):
    return (cnnviz.class_probabilities(model, images).argmax(axis=1) == labels).mean()


def preprocessed(images, mode):
    return keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)


def check_cures(model, images, labels, report):
    """`mend`, and the Python of the sentences run by hand, lead to the accuracy that they state."""
    for_hand = {"x": np.float32(images), "y": labels, "np": np, "tf": tf}
    for code in re.findall(CURE, " ".join(report.findings)):
        for_hand["y" if "[y]" in code else "x"] = eval(code, for_hand)
    mended = report.mend(images, labels)
    np.testing.assert_allclose(mended[0], for_hand["x"], atol=1e-3)
    np.testing.assert_array_equal(mended[1], for_hand["y"])
    assert accuracy(model, *mended) == pytest.approx(report.mended_accuracy)


def test_right_inputs_raise_no_alarm(exacting_model, patches):
    shuffled = as_dataset(*patches).unbatch().shuffle(N).batch(7)
    for data in (patches, as_dataset(*patches), shuffled):
        report = check_inputs(exacting_model, data)
        assert report.findings == () and report.accuracy == 1 and report.n_images == N
        assert "Nothing found" in str(report) and report.mend is None


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda x, y: (x / 255, y), [r"in 0\.\.1, but the model wants 0\.\.255"]),
        (lambda x, y: (x / 127.5 - 1, y), [r"in -1\.\.1, but the model wants 0\.\.255"]),
        (lambda x, y: (x / 255**2, y), [r"0\.00392 \(made twice into 0\.\.1\), but .* 0\.\.255"]),
        (lambda x, y: (x / 255 + 0.05 * (x > 254), y), ["in 0..1.05, but"]),  # by sharp resizing
        (lambda x, y: (x / 2.55, y), [r"in 0\.\.100, but the model wants 0\.\.255"]),
        (lambda x, y: (x * 257, y), ["in 0..6.55e.04, but the model wants 0..255"]),
        (lambda x, y: (x / 127.5, y), [r"in 0\.\.2, but the model wants 0\.\.255"]),
        (lambda x, y: (x / 255 * 16, y), [r"in 0\.\.16, but the model wants 0\.\.255"]),
        (lambda x, y: ((x / 127.5 - 1) / 127.5 - 1, y), [r"made twice into -1\.\.1"]),
        (
            lambda x, y: (preprocessed(preprocessed(x, "torch"), "torch"), y),
            ["made twice into the form of `preprocess_input` of DenseNet"],
        ),
        (lambda x, y: (preprocessed(x / 255, "caffe"), y), ["into 0..1 and then into the form of"]),
        (lambda x, y: (preprocessed(x * 257, "caffe"), y), [r"made into 0\.\.65535 and then"]),
        (lambda x, y: (tf.image.rgb_to_hsv(x / 255).numpy() * 255, y), ["The images are HSV, but"]),
        (lambda x, y: (x[..., ::-1], y), ["BGR instead of RGB"]),
        (lambda x, y: (x, 1 - y), ["another order .*: label 0 is output 1, label 1 is output 0"]),
        (lambda x, y: (x[:, ::2, ::2], y), ["16x16 pixels, and the model does better at 32x32"]),
        (lambda x, y: (x[..., ::-1] / 255, y), [r"model wants 0\.\.255", "BGR"]),
    ],
)
def test_planted_faults_are_found_and_no_others(exacting_model, patches, plant, words):
    report = check_inputs(exacting_model, plant(*patches))
    assert len(re.findall(CURE, str(report))) == len(words), report
    assert all(re.search(one, str(report)) for one in words), report
    assert report.accuracy < 0.7 and report.mended_accuracy > 0.95
    assert f"accuracy {report.accuracy:.1%} -> {report.mended_accuracy:.1%}." in report.findings[0]
    check_cures(exacting_model, *plant(*patches), report)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda x, y: (x[:, ::-1], y), "upside down"),
        (lambda x, y: (x[:, :, ::-1], y), "mirrored"),
        (lambda x, y: (x[:, ::-1, ::-1], y), "rotated by 180 degrees"),
        (lambda x, y: (x.swapaxes(1, 2), y), "transposed"),
        (lambda x, y: (np.rot90(x, 1, (1, 2)), y), "rotated to the left"),
        (lambda x, y: (np.rot90(x, 3, (1, 2)), y), "rotated to the right"),
        (lambda x, y: (255 - x, y), "inverted"),
        (lambda x, y: (x.swapaxes(1, 2) / 255, y), "transposed"),
        (lambda x, y: (x, (y + 1) % 3), "0 is output 2, label 1 is output 0, label 2 is output 1"),
    ],
)
def test_turned_and_inverted_images_and_rotated_labels_are_put_right(plant, words):
    """Of gray images: which of three places is bright tells the class."""
    dense, rescaling = keras.layers.Dense(3), keras.layers.Rescaling(1 / 25)
    model = keras.Sequential([keras.Input((4, 4, 1)), rescaling, keras.layers.Flatten(), dense])
    labels = np.tile([0, 1, 2], 40)
    places = np.eye(16)[[1, 3, 8]]
    dense.set_weights([places.T, np.full(3, 0.1)])
    images = np.random.default_rng(0).uniform(0, 120, (120, 4, 4, 1))
    images = np.float32(images + 130 * places[labels].reshape(images.shape))
    assert check_inputs(model, (images, labels)).findings == ()
    given = plant(images, labels)
    report = check_inputs(model, given)
    assert words in str(report) and report.mended_accuracy > 0.95, report
    check_cures(model, *given, report)


def test_images_of_two_ranges_are_told(exacting_model, patches):
    images, labels = patches
    mixed = np.where((np.arange(N) % 2 == 0)[:, None, None, None], images / 255, images)
    report = check_inputs(exacting_model, (mixed, labels))
    (finding,) = report.findings
    assert finding.startswith(f"{N // 2} of {N} images lie in 0..1, while others reach up to 255")
    assert report.mend is None and report.mended_accuracy == report.accuracy < 0.8


def test_defective_images_are_found_in_proportion(exacting_model, patches):
    images, labels = patches
    (fault,) = find_image_faults([images[:50] * 0])
    assert fault[0].startswith("All 50 images have a single color") and len(fault[1]) == 50
    broken, copies = images.copy(), images.copy()
    broken[[3, 70]] = np.nan
    copies[60:] = copies[0]
    (fault,) = find_image_faults(np.split(broken, 4))
    assert fault[0].startswith(f"2 of {N} images hold NaN") and fault[1].tolist() == [3, 70]
    (fault,) = find_image_faults(iter(np.split(copies, 4)))
    assert "60 of 120 images repeat an earlier image" in fault[0]
    assert fault[1].tolist() == [*range(60, N)] and find_image_faults([images]) == ()
    assert check_inputs(exacting_model, (copies, labels)).findings[0] == fault[0]
    one_black = np.concatenate([images[:1] * 0, images[1:]])
    report = check_inputs(exacting_model, (one_black, labels))
    assert report.findings == () and report.remarks[0].startswith("1 of 120 images has a single")
    gray = np.repeat(images.mean(axis=3, keepdims=True), 3, axis=3)
    report = check_inputs(exacting_model, (gray, labels))
    assert report.findings == () and "All images are gray" in str(report)


@pytest.mark.parametrize("form", ["0..1", "caffe", "torch"])
def test_a_missing_or_repeated_preprocessing_is_found(form, exacting_model, patches):
    """For a model around `exacting_model` with less patience for brighter images."""
    dark, (images, labels) = keras.models.clone_model(exacting_model), patches
    kernel, bias = exacting_model.get_layer("conv").get_weights()
    dark.set_weights([kernel, bias + [0, 0, 4], *exacting_model.get_weights()[2:]])
    pixels, wants = keras.Input((None, None, 3)), "the form of `preprocess_input` of"
    if form == "0..1":
        plain, right, wants = 255 * pixels, images / 255, "0..1. "
    else:
        right = preprocessed(images, form)
        deviation, mean = np.float32([0.229, 0.224, 0.225]), np.float32([0.485, 0.456, 0.406])
        plain = 255 * (pixels * deviation + mean)
    if form == "caffe":
        plain = (pixels + np.float32([103.939, 116.779, 123.68]))[..., ::-1]
    model = keras.Model(pixels, dark(plain))
    assert check_inputs(model, (right, labels)).findings == ()
    missing, repeated = check_inputs(model, patches), check_inputs(exacting_model, (right, labels))
    for report, wanted in ((missing, wants), (repeated, "0..255. ")):
        assert report.accuracy < 0.7 and report.mended_accuracy == 1
        (finding,) = report.findings
        assert f"but the model wants {wanted}" in finding


@pytest.mark.parametrize("fault", ["wants 0..255", "BGR instead of RGB"])
@pytest.mark.parametrize("reversed_labels", [False, True])
def test_a_fault_of_the_images_is_found_beside_one_of_the_labels(
    exacting_model, patches, fault, reversed_labels
):
    """Either labels in another order, where neither cure helps alone, or a fifth of them wrong."""
    images, labels = patches
    images = images[..., ::-1] if "BGR" in fault else images / 255
    wrong = np.random.default_rng(1).random(len(labels)) < 0.2
    labels = 1 - labels if reversed_labels else np.where(wrong, 1 - labels, labels)
    report = check_inputs(exacting_model, (images, labels))
    assert fault in report.findings[0]
    assert ("label 0 is output 1" in str(report)) == reversed_labels
    assert report.mended_accuracy == pytest.approx(1 if reversed_labels else 1 - wrong.mean())


def test_augmented_images_are_found(exacting_model, patches):
    (images, labels), signs = patches, itertools.cycle([1, -1])
    one_batch = tf.TensorSpec((N, SIZE, SIZE, 3)), tf.TensorSpec(N, tf.int32)
    mirrored = lambda: [(images[:, :, :: next(signs)], labels)]  # noqa: E731
    flipped = tf.data.Dataset.from_generator(mirrored, output_signature=one_batch)
    (finding,) = check_inputs(exacting_model, flipped).findings
    assert "change from one reading to the next" in finding


@pytest.mark.parametrize(
    "flipped",
    [
        lambda labels: np.random.default_rng(1).random(len(labels)) < 0.3,
        lambda labels: (labels == 1) & (np.cumsum(labels == 1) % 2 == 0),  # half of class 1
        lambda labels: (labels == 0) & (np.cumsum(labels == 0) % 10 != 0),  # most of class 0
    ],
)
def test_flipped_labels_are_no_fault_of_the_images(exacting_model, patches, flipped):
    """In another form the model may always predict the most frequent label."""
    images, labels = patches
    report = check_inputs(exacting_model, (images, np.where(flipped(labels), 1 - labels, labels)))
    assert report.findings == () and report.accuracy == pytest.approx(1 - flipped(labels).mean())


@pytest.mark.parametrize(("classes", "used", "n"), [(43, 43, 40), (7, 2, 40), (10, 2, 200)])
def test_random_labels_have_no_order(classes, used, n):
    """With more classes than images, or labels of some classes only, one always seems to fit."""
    keras.utils.set_random_seed(1)
    head = keras.layers.Dense(classes, activation="softmax")
    steps = [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten(), head]
    model = keras.Sequential([keras.Input((8, 8, 3)), *steps])
    head.kernel.assign(head.kernel * 30)
    head.bias.assign(head.bias + 0.1)  # as if it were trained
    images = np.random.default_rng(0).random((n, 8, 8, 3))
    for seed in range(5):
        labels = np.random.default_rng(seed).integers(0, used, n)
        report = check_inputs(model, (images, labels))
        assert report.findings == (), report
    assert f"{report.most_frequent:.1%} are of the most frequent class" in str(report)


def test_an_untrained_network_has_no_order_of_labels():
    """Its outputs tell bright images from dark ones, but in no order that was meant."""
    labels = np.tile(np.arange(10), 20)
    images = (
        np.random.default_rng(0).uniform(0, 0.2, (200, 8, 8, 3)) + labels[:, None, None, None] / 12
    )
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        steps = [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten()]
        model = keras.Sequential([keras.Input((8, 8, 3)), *steps, keras.layers.Dense(10)])
        report = check_inputs(model, (images, labels))
        assert report.findings == () and "seems untrained" in str(report)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda images, labels: images, {}, "without labels"),
        (lambda images, labels: (images, labels + 1), {}, r"labels 1\.\.2"),
        (lambda images, labels: (images, labels), {"n_images": 0}, "`n_images` .=0. must be"),
        (lambda images, labels: (images, labels * 0), {}, f"{N} images, .* two classes"),
        (lambda images, labels: (images[:0], labels[:0]), {}, "0 images, .* two classes"),
    ],
)
def test_wrong_arguments_are_named(exacting_model, patches, data, options, message):
    with pytest.raises(ValueError, match=message):
        check_inputs(exacting_model, data(*patches), **options)


def test_images_sorted_by_class_are_drawn_from_both(exacting_model, patches):
    """Of one class alone, whatever makes the model predict that class would seem a cure."""
    order = patches[1].argsort()
    for index in (order, order[::-1]):
        data = as_dataset(patches[0][index], patches[1][index])
        report = check_inputs(exacting_model, data, n_images=20)
        assert report.findings == () and report.n_images == 20
        assert report.accuracy == 1 and report.most_frequent < 0.8
