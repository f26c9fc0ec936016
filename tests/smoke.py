"""Call every public function once, on the shipped and on a nested model: python tests/smoke.py.

.ci/run does this with the lowest versions that pyproject.toml allows. It takes about two minutes.
"""

import inspect
import io
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import cnnviz
from cnnviz.drawn_pets import write_drawn_pets
from cnnviz.results import Result

SIZE = 64


def nested_model():
    """Two classes by softmax, with a residual backbone inside."""
    inputs = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="conv1")(inputs)
    second = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(first)
    backbone = keras.Model(inputs, keras.layers.Add()([first, second]), name="backbone")
    ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
    start = [keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(1 / 255)]
    return keras.Sequential([*start, backbone, *ends])


def calls_without_model(folder):
    """Name -> what calls it; the folder holds drawn pets."""
    file = next((folder / "train" / "cats").iterdir())

    def train():
        splits = [cnnviz.load_split(folder / name, image_size=SIZE) for name in ("train", "test")]
        model = cnnviz.build_model(width=4)
        cnnviz.train(model, *splits, epochs=1, verbose=0)
        monitor = cnnviz.Monitor(next(iter(splits[1]))[0], stop_on_fault=False)
        model.fit(splits[0], callbacks=[monitor], verbose=0)
        return monitor

    def load_pretrained():
        image = cnnviz.sample_image()
        assert cnnviz.class_probabilities(cnnviz.load_pretrained(), image)[0, 0] > 0.9  # a cat

    return {
        "drawn_pets": lambda: cnnviz.drawn_pets(3, image_size=32, watermark="dog"),
        "load_image": lambda: cnnviz.load_image(file, image_size=32),
        "sample_image": cnnviz.sample_image,
        "load_split": lambda: list(cnnviz.load_split(folder / "train", image_size=SIZE)),
        "build_model": cnnviz.build_model,
        "train": train,
        "load_pretrained": load_pretrained,
    }


def calls_with_model(model, layer, folder):
    """Name -> what calls it."""
    pets = cnnviz.drawn_pets(24, image_size=SIZE, seed=1)
    images, few, data = pets.images, pets.images[:4], (pets.images, pets.labels)
    train, file = cnnviz.load_split(folder / "train", image_size=SIZE), folder / "model.keras"

    def class_probabilities():
        np.testing.assert_allclose(cnnviz.class_probabilities(model, images).sum(axis=1), 1, 1e-5)

    def load_model():
        loaded = cnnviz.load_model(file, trusted=True)
        before, after = (cnnviz.class_probabilities(each, images) for each in (model, loaded))
        np.testing.assert_allclose(before, after, atol=1e-6)

    def grad_cam():
        result = cnnviz.grad_cam(model, few)
        assert np.all(result.maps >= 0) and len(result.maps) == len(few)
        return result

    return {
        "class_probabilities": class_probabilities,
        "save_model": lambda: cnnviz.save_model(model, file),
        "load_model": load_model,
        "extract_activations": lambda: cnnviz.extract_activations(model, few)[layer],
        "ascend_filters": lambda: cnnviz.ascend_filters(model, layer, [0, 1], steps=4),
        "top_patches": lambda: cnnviz.top_patches(model, images, layer, [0, 1], n_patches=3),
        "grad_cam": grad_cam,
        "explore": lambda: cnnviz.explore(model, few),
        "diagnose": lambda: cnnviz.diagnose(model, data, train=data),
        "find_duplicates": lambda: cnnviz.find_duplicates(data, few),
        "check_inputs": lambda: cnnviz.check_inputs(model, data),
        "suspect_labels": lambda: cnnviz.suspect_labels(model, data),
        "filter_census": lambda: cnnviz.filter_census(model, train),
        "reliance": lambda: cnnviz.reliance(model, images, pets.part_masks),
        "confident_mistakes": lambda: cnnviz.confident_mistakes(model, data, train, n_mistakes=2),
        "compare_models": lambda: cnnviz.compare_models(
            model, keras.models.clone_model(model), few
        ),
        "map_trust": lambda: cnnviz.map_trust(model, images[:8], pets.labels[:8], n_mosaics=4),
    }


def display(result):
    """Show a result in every way that it has."""
    assert "\n" not in repr(result) and str(result) and result._repr_html_()
    if hasattr(result, "_columns") or "to_frame" in vars(type(result)):
        assert len(result.to_frame())
    if result._draw or type(result).plot is not Result.plot:  # it has a figure
        result.plot().savefig(io.BytesIO())


def main():
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}"
    print(f"Python {platform.python_version()}, {versions}, cnnviz in {cnnviz.__path__[0]}")
    called = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_drawn_pets(folder, train=32, validation=4, test=8, image_size=SIZE)
        models = {"the shipped model": (cnnviz.load_pretrained(), "block2_conv1")}
        models["a nested model"] = nested_model(), "backbone/conv2"
        groups = {"no model": calls_without_model(folder)}
        groups |= {name: calls_with_model(*each, folder) for name, each in models.items()}
        for group, calls in groups.items():
            for function, call in calls.items():
                start = time.monotonic()
                result = call()
                if isinstance(result, Result):
                    display(result)
                print(f"{function}, {group}: {time.monotonic() - start:.1f} s", flush=True)
            called |= set(calls)
    public = {name for name in cnnviz.__all__ if inspect.isfunction(getattr(cnnviz, name))}
    if public != called:
        sys.exit(f"not called: {sorted(public - called)}; not public: {sorted(called - public)}")


if __name__ == "__main__":
    main()
