"""Alternative text: it says what the figure is, with the numbers of the data."""

import numpy as np
import pytest
from test_figures import BINS, HISTORY, census, changes, crops, filter_images, heat, mistakes

from cnnviz import descriptions, figures
from cnnviz.diagnosis import MapTrust

PETS = ("cat", "dog")


def test_pictures_are_counted_and_named():
    assert (
        descriptions.images(np.zeros((2, 4, 6, 3)), PETS) == "2 pictures of 4x6 pixels: cat, dog."
    )
    assert descriptions.images(np.zeros((4, 6, 3))) == "1 picture of 4x6 pixels."
    assert descriptions.images([np.zeros((4, 6, 3)), np.zeros((5, 6, 3))]) == "2 pictures."
    many = descriptions.images(np.zeros((30, 4, 6, 3)), [f"cat {i}" for i in range(30)])
    assert "cat 11 and 18 more." in many and "cat 12" not in many


def test_curves_say_where_they_begin_end_and_are_best():
    text = descriptions.learning_curves(HISTORY)
    assert "3 epochs" in text
    assert "validation loss goes from 0.65 to 0.5, best in epoch 2 with 0.45" in text
    assert "accuracy goes from 55% to 75%, best in epoch 2 with 87.5%" in text
    assert "training accuracy from 50% to 80%" in text


def test_best_epoch_is_never_one_of_nan():
    text = descriptions.learning_curves(HISTORY | {"val_loss": [0.65, np.nan, 0.5]})
    assert "best in epoch 3 with 0.5;" in text


def test_calibration_says_its_error_and_its_fullest_bin():
    text = descriptions.calibration(BINS, 0.0414)
    assert "0.041" in text
    assert "75% of the pictures, 100.0% are right where the model is 90.0% sure" in text


def test_confusion_names_the_most_frequent_mistakes():
    text = descriptions.confusion_matrix([0, 0, 1, 1, 1], [0, 1, 0, 0, 1], PETS)
    assert "2 of 5 pictures right (40.0%)" in text
    assert text.endswith("Mistakes: dog taken for cat 2 times, cat taken for dog 1 time.")
    assert descriptions.confusion_matrix([0, 1], [0, 1], PETS).endswith("Mistakes: none.")
    labels, answers = np.repeat(np.arange(6), 2), np.repeat(np.roll(np.arange(6), 1), 2)
    text = descriptions.confusion_matrix([*labels, 0], [*answers, 5], "abcdef")
    assert "Most mistakes: a taken for f 3 times" in text and text.count("taken") == 4


def test_activations_say_range_strongest_channel_and_what_is_silent():
    maps = np.zeros((4, 5, 6))
    maps[1, 2, 3], maps[0, 0, 4] = 2.5, -1
    text = descriptions.activations(maps, "conv2", dead=np.arange(6) == 1)
    assert "layer conv2" in text and "6 channels of 4x5, 4 of one value only, 1 marked" in text
    assert "-1 to 2.5, the highest in channel 3" in text


def test_filters_say_their_gain_and_those_with_nothing_to_see():
    text = descriptions.filters(filter_images())
    assert "4 pictures" in text and "activation of 8, and 0.25 on the noise" in text
    assert text.endswith("Nothing to see: 7 (dead), 21 (no gain).")


def test_crops_say_their_filters_and_activations():
    text = descriptions.exciting_crops(crops(), ascended=filter_images())
    assert "4 pieces of real pictures, 9x7 pixels" in text and "beside" in text
    assert "0 (9), 7 (" in text


@pytest.mark.parametrize(
    ("row", "column", "value", "place"),
    [
        (0, 0, 1, "top left"),
        (3, 3, 1, "centre"),
        (5, 3, 1, "bottom"),
        (2, 5, -1, "against it, right"),
    ],
)
def test_heat_maps_say_where_the_evidence_is_strongest(row, column, value, place):
    maps = np.full((1, 7, 7), 0.01, np.float32)
    maps[0, row, column] = value
    text = descriptions.heat_maps([0], heat(1, maps=maps), PETS, titles=["cat 97%"])
    assert "1 picture: cat 97%. " in text
    assert text.endswith(f"grad-cam at block4_add3 for cat: {place} (-3.25 logit).")


def test_the_one_place_of_a_map_is_its_centre_and_an_empty_map_says_why():
    text = descriptions.heat_maps([0], heat(1, maps=np.ones((1, 1, 1))), PETS)
    assert "cat: centre (" in text
    empty = heat(1, maps=np.zeros((1, 6, 6)), verdicts=("zero gradient",))
    assert "cat: zero gradient (" in descriptions.heat_maps([0], [empty], PETS)


def test_trust_names_the_best_method_and_none_that_knows_nothing():
    high, low = np.array([0.2, 0.7, 0.9]), np.array([-0.3, 0.1, 0.0])
    missing = np.full(3, np.nan)
    text = descriptions.map_trust(MapTrust(("a", "b", "random"), high, high, low, missing, low))
    assert "focus 0.70 (b), pointing 0.70 (b)" in text and "survival 0.10 (b)" in text
    assert "random" not in text and "insertion" not in text and "nan" not in text


def test_census_counts_channels_by_what_they_do():
    text = descriptions.census(census())
    assert "30 channels of 3 layers did on 1,200 pictures: 18 ok, 6 never fires" in text
    assert "4 of 10 in block1_conv1" in text


def test_mistakes_say_what_was_taken_for_what():
    text = descriptions.mistakes(mistakes(1), PETS)
    assert "Taken: cat (given 3.1%) for dog." in text and "3 training pictures" in text
    assert descriptions.mistakes(mistakes(0), PETS) == "No mistake was made."


def test_changes_name_the_layer_that_moved_most():
    text = descriptions.changes(changes())
    assert "most in block4_conv3, by 25.0% of their size; those of 2 of 3 layers" in text
    assert "filters 0, 7, 14, 21 of block4_conv3" in text
    assert "no layer moved" in descriptions.changes(changes((0.0,) * 3))


def test_text_can_be_replaced_by_ones_own():
    figure = figures.draw_calibration(BINS, 0.04)
    figure.alt = "My own."
    assert figure.alt == "My own." != figures.draw_calibration(BINS, 0.04).alt
