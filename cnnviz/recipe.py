"""The recipe of the shipped classifier: every choice once. `docs/training.md` has the trials."""

# What `train` gets. Low image sizes come first: most of what there is to learn shows at 64 pixels,
# where an epoch costs a quarter of one at 128. A short training does not memorize its images, so it
# learns more from weak augmentation; a long one needs strong augmentation.
_BEST_SIZES = (64,) * 56 + (96,) * 36 + (128,) * 18 + (144,) * 6
RECIPES = {
    "quick": {"image_sizes": (64,) * 8 + (80,), "augment": 0.4},
    "best": {"image_sizes": _BEST_SIZES, "augment": 1.0, "cut_mix": 0.5},
}
# Side lengths in pixels.
STORED_SIZES = {"quick": 112, "best": 180}  # of photographs in memory, so that crops are sharp
USED_SIZES = {"quick": 80, "best": 160}  # for use; of 128 to 192 the most accurate on validation
BATCH_SIZE = 64  # smaller learns more per epoch, larger uses the cores better

LEARNING_RATE = 1e-2  # the peak
WARM_UP = 0.2  # fraction of the steps in which the learning rate rises
WEIGHT_DECAY = 0.02  # of kernels; large, since the network has far more parameters than images
ORTHOGONALIZING_STEPS = 3  # of Newton and Schulz; 5 are usual, 3 do as well here and cost less
LABEL_SMOOTHING = 0.05  # limits the confidence in images whose label is wrong

SMALLEST_CROP = 0.65  # side of the smallest crop, as a fraction of the image's side
LIGHTING = 0.15  # contrast is scaled by up to this fraction, brightness moves by as much of 128
CUT_OUT = 0.3  # side of the gray square, as a fraction of the image's side
