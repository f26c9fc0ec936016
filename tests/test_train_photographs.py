"""train_photographs.py: from separated photographs to a classifier, its history and its figures."""

import re
import sys

import cv2
import keras
import numpy as np
import pytest

import cnnviz
import train_photographs

RECIPE = {"image_sizes": (32, 32, 48), "augment": 0.4}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """-> (the .keras file, what was printed), with a recipe of seconds."""
    monkeypatch.setattr(train_photographs, "RECIPES", {"best": RECIPE})
    monkeypatch.setattr(train_photographs, "KEPT_SIZES", {"best": 48})
    monkeypatch.setattr(train_photographs, "USED_SIZES", {"best": 56})

    def run_with(*options, photos=tmp_path / "photos"):
        path = tmp_path / "pets.keras"
        monkeypatch.setattr(sys, "argv", ["", str(photos), str(path), *options])
        train_photographs.main()
        return path, capsys.readouterr().out

    cnnviz.write_drawn_pets(tmp_path / "photos", train=64, validation=20, test=12)
    return run_with


def test_the_reported_accuracy_is_that_of_the_file(run, tmp_path):
    path, printed = run()
    model = cnnviz.load_model(path)
    for part, count in (("validation", 20), ("test", 12)):
        data = cnnviz.load_split(tmp_path / "photos" / part, image_size=56)
        images, labels = (
            np.concatenate(both) for both in zip(*data.as_numpy_iterator(), strict=True)
        )
        right = (cnnviz.class_probabilities(model, images).argmax(axis=1) == labels).sum()
        assert f"{part}: {right} of {count} right" in printed
    assert len(re.findall("expected calibration error", printed)) == 4


def test_history_and_curves_stand_beside_the_model(run):
    path, _ = run()
    history = cnnviz.callbacks.read_history(f"{path.with_suffix('.training.keras')}.csv")
    assert history["image_size"] == list(RECIPE["image_sizes"])
    curves = cv2.imread(str(path.with_suffix(".training.png")))
    assert curves is not None and curves.std() > 0


def test_what_is_missing_is_told_before_the_training(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(photos=tmp_path / "nowhere")
    assert not list(tmp_path.glob("pets*"))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_training_that_was_interrupted_writes_no_model(
    run, monkeypatch, tmp_path, capsys, epochs
):
    history = keras.callbacks.History()
    history.history = {"loss": [0.7]} if epochs else {}
    monkeypatch.setattr(cnnviz, "train", lambda *_, **options: history)
    with pytest.raises(SystemExit) as exit:
        run()
    assert exit.value.code == 1
    assert f"pets.keras is not written: {epochs} of 3 epochs are done" in capsys.readouterr().err
    assert not (tmp_path / "pets.keras").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_stopped_after_the_training_it_does_not_train_again(earlier, run, monkeypatch, tmp_path):
    trained, calls, kept = cnnviz.train, [], []

    def watched(model, *args, **options):
        calls.append(options["checkpoint"].name)
        history = trained(model, *args, **options)
        kept.append(model.get_weights())
        return history

    def stopped(model, data):
        raise KeyboardInterrupt

    if earlier:
        cnnviz.save_model(cnnviz.build_model(width=2), tmp_path / "pets.keras")
    monkeypatch.setattr(cnnviz, "train", watched)
    monkeypatch.setattr(cnnviz, "calibrate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(cnnviz, "calibrate", lambda model, data: 1.0)
    path, _ = run()
    assert calls == ["pets.training.keras"]
    model = cnnviz.build_model()
    model.set_weights(kept[0])
    image = cnnviz.sample_image()[None, :56, :56]
    expected = cnnviz.class_probabilities(cnnviz.fold_batch_normalization(model), image)
    np.testing.assert_allclose(
        cnnviz.class_probabilities(cnnviz.load_model(path), image), expected, atol=1e-4
    )
    run()  # a command that was not stopped begins anew
    assert calls == 2 * ["pets.training.keras"]
