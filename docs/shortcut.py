"""Draw docs/shortcut.png, the README's figure: `python docs/shortcut.py` takes two minutes.

Two networks learn cats and dogs. In the training images of the first one, every dog carries a
stamp. The figure shows where each network finds its evidence for "dog" in stamped images.
"""

from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import cnnviz

N_IMAGES, SIZE, N_SHOWN = 1600, 96, 4
DARKEST = 0.35  # brightness where there is no evidence

keras.utils.set_random_seed(0)
stamped, clean = (
    cnnviz.drawn_pets(400, image_size=SIZE, seed=2, watermark=w) for w in ("dog", None)
)
dogs = stamped.images[stamped.labels == 1]
figure = Figure(figsize=(9, 4.4), layout="constrained")
rows = figure.subfigures(2)
for row, name, watermark, epochs in ((rows[0], "with", "dog", 3), (rows[1], "without", None, 12)):
    pets = cnnviz.drawn_pets(N_IMAGES, image_size=SIZE, seed=1, watermark=watermark)
    data = tf.data.Dataset.from_tensor_slices((pets.images, pets.labels))
    train, validation = data.skip(200).shuffle(N_IMAGES, seed=0).batch(32), data.take(200).batch(50)
    model = cnnviz.build_model(width=8)
    cnnviz.train(model, train, validation, epochs=epochs, augment=watermark is None, verbose=0)

    predicted = [
        cnnviz.class_probabilities(model, x.images).argmax(axis=1) for x in (stamped, clean)
    ]
    accuracies = [np.mean(predictions == clean.labels) for predictions in predicted]
    options = {"method": "hires-cam", "layer_name": "block3_add3"}
    maps = cnnviz.grad_cam(model, dogs, class_index=1, **options).maps
    title = "Trained {} stamps: accuracy {:.0%} on stamped images, {:.0%} on clean ones"
    row.suptitle(title.format(name, *accuracies), x=0.01, ha="left", weight="bold")
    axes = row.subplots(1, N_SHOWN + 1)
    pairs = zip(axes[:-1], dogs[:N_SHOWN], maps[:N_SHOWN], strict=True)
    for axis, image, evidence in pairs:
        light = cv2.resize(evidence / evidence.max(), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        light = DARKEST + (1 - DARKEST) * np.clip(light, 0, 1)[..., None]
        axis.imshow((image * light).astype(np.uint8))
    mean = axes[-1].imshow(maps.mean(axis=0) / maps.mean(), cmap="inferno", vmin=0)
    bar = row.colorbar(mean, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label(f"mean map of {len(dogs)} dogs,\nin units of its average", size="small")
    for axis in axes:
        axis.axis("off")
figure.savefig(Path(__file__).with_name("shortcut.png"), dpi=110)
