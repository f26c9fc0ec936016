"""Any bytes and any arrays -> a right result or a ValueError in one line; never anything else.

`FUZZ_EXAMPLES=20000 pytest tests/test_fuzz.py` tries for minutes; what that finds belongs into the
corpus of images and among the other tests.
"""

import os
import re
import warnings

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import keras
import numpy as np
import PIL.Image
import pytest
from image_corpus import bad_files, good_files

from cnnviz.activations import extract_activations
from cnnviz.data import decode_image
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
fuzz = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES == 60,  # the default run always tries the same
    suppress_health_check=list(hypothesis.HealthCheck),
)

FILES = [file.data for file in good_files().values()] + [data for data, _ in bad_files().values()]


def one_line(error):
    return "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) > 5


def names_an_argument(error):
    return one_line(error) and re.match(r"`\w+` ", str(error))


# image files


@some.composite
def changed_files(draw):
    """A file of the corpus with a few pieces overwritten, inserted, taken out or cut off."""
    data = bytearray(draw(some.sampled_from(FILES)))
    for _ in range(draw(some.integers(1, 4))):
        place = draw(some.integers(0, len(data)))
        piece = draw(some.binary(max_size=8))
        change = draw(some.sampled_from(["overwrite", "insert", "take out", "cut off"]))
        if change == "overwrite":
            data[place : place + len(piece)] = piece
        elif change == "insert":
            data[place:place] = piece
        elif change == "take out":
            del data[place : place + draw(some.integers(1, 200))]
        else:
            del data[place:]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # what Pillow remarks beside
@fuzz
@hypothesis.given(changed_files())
def test_any_bytes_are_an_image_or_an_error(data):
    try:
        pixels = decode_image(data)
    except ValueError as error:
        assert one_line(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert 0 < pixels.shape[0] * pixels.shape[1] <= 2 * PIL.Image.MAX_IMAGE_PIXELS


# arrays and names


def _model():
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    end = [keras.layers.GlobalAveragePooling2D(name="pooling"), keras.layers.Dense(3, name="head")]
    return keras.Sequential([keras.Input((None, None, 3)), convolution, *end])


MODEL = _model()
sides = some.sampled_from([1, 2, 7])  # few, since each size is traced anew
shapes = some.one_of(
    some.tuples(some.integers(0, 3), sides, sides, some.just(3)),
    some.tuples(sides, sides, some.sampled_from([1, 3, 4])),
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
)
dtypes = some.sampled_from("float32 float64 float16 uint8 uint16 bool complex64 U3 M8[s]".split())
anything = some.one_of(
    some.none(),
    some.integers(-2, 300),
    some.floats(),
    some.complex_numbers(),
    some.text(max_size=5),
    some.binary(max_size=3),
    some.lists(some.one_of(some.integers(-1, 3), some.lists(some.integers(-1, 3))), max_size=3),
)
images_or_not = some.one_of(
    arrays.arrays(dtypes, shapes),
    arrays.arrays("float32", shapes, elements=some.floats(-300, 300, width=32)),
    anything,
)
indices = some.one_of(some.lists(some.integers(-1, 3), max_size=3), anything)
names = some.one_of(some.sampled_from(["conv", "pooling", "head", "con", ""]), anything)


def checked(look, *args, **kwargs):
    """What `look` returns, or None after an error of one line; the model is left as it was."""
    before = [weights.tobytes() for weights in MODEL.get_weights()]
    try:
        with warnings.catch_warnings():  # all but what the library itself says is an error
            warnings.simplefilter("ignore", UserWarning)
            return look(MODEL, *args, **kwargs)
    except ValueError as error:
        assert names_an_argument(error), error
        return None
    finally:
        assert [weights.tobytes() for weights in MODEL.get_weights()] == before
        assert not any("call" in vars(layer) for layer in MODEL.layers)


def number_of(images):
    return np.shape(images)[0] if np.ndim(images) == 4 else 1


@fuzz
@hypothesis.given(images_or_not, some.one_of(names, some.lists(names, max_size=2)))
def test_any_array_and_name_give_right_shapes_or_an_error(images, name):
    found = checked(class_probabilities, images, output_name=name)
    if found is not None:
        assert found.shape == (number_of(images), 3) and found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    for values in (checked(extract_activations, images, name) or {}).values():
        assert len(values) == number_of(images) and values.dtype == np.float32


@fuzz
@hypothesis.given(
    images_or_not,
    some.fixed_dictionaries(
        {},
        optional={
            "class_index": indices,
            "layer_name": names,
            "method": some.one_of(some.sampled_from(["grad-cam", "hires-cam"]), anything),
            "signed": some.booleans(),
        },
    ),
)
def test_any_array_and_option_give_a_map_or_an_error(images, options):
    found = checked(grad_cam, images, **options)
    if found is not None:
        assert len(found.maps) == len(found.scores) == len(found.verdicts) == number_of(images)
        assert np.isfinite(found.maps).all()
        assert options.get("signed") or found.maps.min(initial=0) >= 0


@fuzz
@hypothesis.given(
    names,
    indices,
    some.fixed_dictionaries(
        {"steps": some.integers(1, 2), "image_size": some.sampled_from([None, 0, 7, 7.5, "a"])},
        optional={
            "class_index": indices,
            "step_size": some.one_of(some.floats(0.01, 1), anything),
            "smoothness": some.one_of(some.floats(0, 1000), anything),
            "value_range": some.one_of(some.tuples(some.floats(), some.floats()), anything),
            "seed": anything,
            "batch_size": anything,
        },
    ),
)
def test_any_filter_and_option_give_images_or_an_error(layer_name, filters, options):
    found = checked(ascend_filters, layer_name, filters, **options)
    if found is not None:
        assert len(found.images) == len(found.filters) == len(found.verdicts) > 0
        assert np.isfinite(found.images).all()
