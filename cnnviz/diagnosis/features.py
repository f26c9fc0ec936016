"""(model, images) -> (N, C) features: what the network holds of each picture at its end."""

import functools

import tensorflow as tf

from cnnviz import layers
from cnnviz.grad_cam import last_feature_map


def picture_features(model, images):
    """The mean over all places of the last feature map, in which alike pictures lie close.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) pictures in the model's input range.

    Returns:
        (N, C) float32 array.

    Raises:
        ValueError: If the images do not fit the model, or NaN comes out.
    """
    images = layers.check_images(model, images)

    def make(get_model):
        @tf.function(autograph=False, input_signature=[layers.image_spec(images)])
        def features(batch):
            model = get_model()
            output, outputs = layers.call_and_record(model, batch, layers.named_layers(model))
            outputs_of_heads = [y for y in tf.nest.flatten(output) if tf.is_tensor(y)]
            score = tf.add_n([tf.reduce_sum(tf.cast(y, tf.float32)) for y in outputs_of_heads])
            gradients = functools.partial(tf.gradients, score)
            _, feature_map, _ = last_feature_map(model, outputs, gradients)
            return tf.reduce_mean(tf.cast(feature_map, tf.float32), (1, 2))

        return features.get_concrete_function()

    function = layers.traced(model, ("features", images.shape[1:]), make)
    layers.check_range(model, images)
    found = layers.in_batches(function, images)
    layers.check_finite(model, found)
    return found
