"""How the shipped classifier was trained: every choice once, with its reason.

What was tried and did worse is in `tests/benchmarks/training.md`.
"""

# What `train` is told. One image size, in pixels, for each epoch on photographs: low resolution
# first, since most of what there is to learn shows at 64 pixels, where an epoch costs a quarter of
# one at 128. A short training does not get to know its pictures by heart: it learns more from
# pictures that are varied less. A long one does, unless they are varied more.
RECIPES = {
    "quick": {"image_sizes": (64,) * 7 + (80,), "augment": 0.4},
    "best": {
        "image_sizes": (64,) * 56 + (96,) * 36 + (128,) * 18 + (144,) * 6,
        "augment": 1.0,
        "cut_mix": 0.5,
    },
}
# Of `build_model`: cosines put a short training ahead; the best one was done without them.
FIRST_KERNELS = {"quick": "cosines", "best": "random"}
# Side of photographs as they are kept for training, so that a crop is as sharp as a whole picture.
KEPT_SIZES = {"quick": 112, "best": 180}
# Side at which the trained network is calibrated and judged: of 128 to 192 pixels the one at which
# most of the validation part was right.
USED_SIZES = {"quick": 80, "best": 160}
BATCH_SIZE = 64  # smaller learns more per epoch, larger uses the cores better

LEARNING_RATE = 1e-2  # the peak
WARM_UP = 0.2  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.02  # of kernels; large, since the network has far more parameters than pictures
ORTHOGONALIZING_STEPS = 3  # of Newton and Schulz; 5 are usual, 3 do as well here and cost less
LABEL_SMOOTHING = 0.05  # keeps the network from growing sure of pictures whose label is wrong

SMALLEST_CROP = 0.65  # side of the smallest crop, as a share of the picture's side
LIGHTING = 0.15  # contrast is scaled by up to this share, brightness moved by as much of 128
CUT_OUT = 0.3  # side of the square that is painted grey, as a share of the picture's side
