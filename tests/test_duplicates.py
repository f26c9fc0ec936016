"""`find_duplicates` finds copies that are planted, says how they were made, and no others."""

import cv2
import numpy as np
import pytest
import skimage.data
import tensorflow as tf

import cnnviz
from cnnviz.diagnosis.duplicates import find_duplicates


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)


def resized(image, side):
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


COPIES = {  # how an image of 96 pixels is copied, and how that is to be recognized
    "encoded again": (jpeg, "near copy"),
    "half the size": (lambda image: resized(image, 48), "near copy"),
    "brighter": (lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8), "near copy"),
    "less contrast": (lambda image: (image * 0.6 + 50).astype(np.uint8), "near copy"),
    "mirrored": (lambda image: image[:, ::-1], "mirrored"),
    "center": (lambda image: image[5:-5, 5:-5], "cropped"),
    "corner": (lambda image: image[9:, :-9], "cropped"),
    "one side": (lambda image: image[:, 9:], "cropped"),
    "both": (
        lambda image: jpeg(np.ascontiguousarray(image[4:-5, -3:5:-1])),
        "mirrored and cropped",
    ),
}


@pytest.fixture(scope="module")
def images():
    """Pieces of real photographs and drawn pets, uint8, 96 pixels."""
    photos = skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()
    spots = [(0, 0), (0, 210), (100, 120)]
    pieces = [resized(photo[y : y + 200, x : x + 200], 96) for photo in photos for y, x in spots]
    return np.array([*pieces, *cnnviz.drawn_pets(60).images.astype(np.uint8)])


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_no_others(kind, images):
    copy, recognized = COPIES[kind]
    copies = np.array([resized(copy(image), 96) for image in images[::3]])
    found = find_duplicates(images[::-1] / 255.0, copies)
    pairs = {(len(images) - 1 - i, 3 * j) for i, j in found.index}
    assert len(pairs) >= 0.9 * len(copies)
    assert all(i == j for i, j in pairs) and set(found.kinds) == {recognized}
    assert (found.split == [0, 1]).all() and found.similarity.min() >= 0.8


def test_images_without_copies_give_no_pairs(images):
    found = find_duplicates(images, cnnviz.drawn_pets(40, seed=1, image_size=64).images)
    assert len(found.kinds) == 0 and len(found.copied[0]) == len(found.to_frame()) == 0
    assert str(found).startswith("data: 0 of 69 images with a copy in another split.")


def plain():
    generator = np.random.default_rng(0)
    slopes = np.linspace(0, 60, 96)[:, None] * generator.uniform(0.2, 1, 20)[:, None, None]
    slopes = slopes + generator.normal(0, 1, (20, 96, 96))
    yield "slopes", slopes.repeat(3).reshape(20, 96, 96, 3).round()
    yield "flat", np.array([jpeg(np.full((96, 96, 3), i, np.uint8)) for i in range(20)]) + 0.0
    digits = generator.uniform(size=(20, 8, 8, 1)) > 0.1
    yield "tiny", digits * 1.0
    yield "tiny, enlarged", digits.repeat(8, 1).repeat(8, 2) * 1.0
    strokes = np.zeros((20, 64, 64, 1))
    for i, image in enumerate(strokes):
        cv2.line(image[..., 0], (30 + i % 3, 8), (32, 50 + i), 1.0, 5, cv2.LINE_AA)
    yield "strokes", strokes


@pytest.mark.parametrize("images", [pytest.param(i, id=name) for name, i in plain()])
def test_plain_images_are_copies_only_if_exact_and_of_several_colors(images):
    unique = np.unique(images, axis=0)
    found = find_duplicates(np.concatenate([unique, unique[3:4]]))
    if not np.ptp(unique[3]):  # one color: a defect, and no copy
        assert len(found.kinds) == 0
        return
    assert found.kinds == ["exact"] and found.index.tolist() == [[3, len(unique)]]


def test_identical_images_pair_with_the_first_and_all_are_leaked(images):
    data = np.concatenate([images[:5], images[:1].repeat(50, 0)])
    labels = [0] * 54 + [1]
    found = find_duplicates((data, labels), (images[[0, 7]], [1, 1]), names=("a", "b"))
    assert len(found.kinds) == 51 and set(found.kinds) == {"exact"}
    assert (found.index[:, 0] == 0).all() and found.split[0].tolist() == [0, 1]
    assert found.copied[0].tolist() == [0, *range(5, 55)] and found.copied[1].tolist() == [0]
    assert found.labels[found.conflicting, 1].tolist() == [1, 1]
    assert str(found).splitlines() == [
        "a: 51 of 55 images with a copy in another split.",
        "b: 1 of 2 images with a copy in another split.",
        "51 pairs of copies: 51 exact; 50 within a split; 2 with different labels.",
    ]


def test_datasets_paths_tables_and_figures(images):
    data = tf.data.Dataset.from_tensor_slices((images[:9], np.eye(3)[np.arange(9) % 3])).batch(4)
    files = [f"x/{i}.jpg" for i in range(9)]
    mirrored = images[:9, :, ::-1].mean(-1, keepdims=True)
    options = {"names": ("validation", "train"), "class_names": ("cat", "dog", "emu")}
    found = find_duplicates(data, mirrored, paths=(files, ()), **options)
    assert set(found.kinds) == {"mirrored"} and found.labels[:, 1].max() == -1
    table = found.to_frame().sort_values("index").reset_index()
    assert table["file"].tolist() == files and set(table["file of copy"]) == {""}
    assert table["label"].tolist()[:3] == ["cat", "dog", "emu"]
    assert table["label of copy"].unique() == [""]
    texts = [axis.get_title(loc="left") for axis in found.plot().axes]
    assert "validation 0.jpg, cat" in texts and any("mirrored" in text for text in texts)
    np.testing.assert_array_equal(found.images[0][0], images[found.index[0, 0]])
    shuffled = data.unbatch().shuffle(9, seed=1).batch(4)
    with pytest.warns(UserWarning, match="another order"):
        assert find_duplicates(shuffled, data).images == []


def test_missing_names_are_told(images):
    with pytest.raises(ValueError, match="`names` .* must be 2"):
        find_duplicates(images[:4], images[5:8], names=["a"])
