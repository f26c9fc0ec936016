"""train_photographs: from separated photographs to a classifier, its history and its curves."""

import re
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import without_xla

import cnnviz
import train_photographs
from cnnviz.drawn_pets import write_drawn_pets
from cnnviz.training import read_history

RECIPE = {"image_sizes": (32, 48), "augment": 0.4}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command on drawn pets, with a recipe of seconds; -> what was printed."""
    monkeypatch.setattr(train_photographs, "RECIPES", {"best": RECIPE})
    monkeypatch.setattr(train_photographs, "STORED_SIZES", {"best": 48})
    monkeypatch.setattr(train_photographs, "USED_SIZES", {"best": 56})
    monkeypatch.setattr("cnnviz.model.BLOCKS", ((1, 1), (2, 1)))  # two blocks of the four
    build = cnnviz.build_model
    monkeypatch.setattr(cnnviz, "build_model", lambda **options: without_xla(build(**options)))

    def run_with():
        argv = ["", str(tmp_path / "photos"), str(tmp_path / "pets.keras")]
        monkeypatch.setattr(sys, "argv", argv)
        train_photographs.main()
        return capsys.readouterr().out

    return run_with


def test_stopped_after_the_training_it_goes_on_to_model_report_and_curves(
    run, monkeypatch, tmp_path
):
    def stopped(model, data):
        raise KeyboardInterrupt

    write_drawn_pets(tmp_path / "photos", train=32, validation=20, test=12)
    with monkeypatch.context() as patch:
        patch.setattr(train_photographs, "calibrate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert read_history(tmp_path / "pets.training.keras")["image_size"] == [32, 48]
    monkeypatch.setattr(cnnviz, "train", None)  # nothing is left to train
    printed = run()
    model = cnnviz.load_model(tmp_path / "pets.keras", trusted=True)
    for split, n_images in (("validation", 20), ("test", 12)):
        data = cnnviz.load_split(tmp_path / "photos" / split, image_size=56)
        images, labels = map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))
        correct = (cnnviz.class_probabilities(model, images).argmax(axis=1) == labels).sum()
        assert f"{split}: {correct} of {n_images} correct" in printed
    assert len(re.findall("calibration error", printed)) == 4
    curves = cv2.imread(str(tmp_path / "pets.training.png"))
    assert curves is not None and curves.std() > 0


@pytest.mark.parametrize(
    "flags, capability, policy",
    [
        ("fpu avx2 avx512_bf16 sha_ni", None, "mixed_bfloat16"),
        ("fpu avx2 avx512f", None, "float32"),
        (None, None, "float32"),
        ("fpu amx_bf16", (9, 0), "mixed_bfloat16"),
        ("fpu amx_bf16", (7, 5), "float32"),
    ],
)
def test_precision_follows_the_machine(flags, capability, policy, tmp_path, monkeypatch):
    gpus, details = (["a GPU"], {"compute_capability": capability}) if capability else ([], {})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    monkeypatch.setattr(train_photographs, "CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert train_photographs.fastest_precision() == policy
