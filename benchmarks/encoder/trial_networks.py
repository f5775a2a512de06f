"""How a trial's network is built, trained, and asked for embeddings: what `trials.py` runs.

Kept apart from `CNNClassifier`, which neither mixes patches, nor learns from soft labels, nor from pairs of views.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from histofeat.images import VIEWS, take_view
from histofeat.networks import (
    augment,
    fit_patch,
    forget_sooner,
    import_keras,
    learning_rates,
    make_optimizer,
    residual_stages,
)

#: Side in px that all patches have in memory; a network of another input size sees them enlarged after augmentation.
PATCH_PX = 50
#: Widths of SimSiam's projection and of the bottleneck of its prediction.
PROJECTED, BOTTLENECK = 256, 64
_DROPOUT = 0.2
_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Trained:
    """What a trained network says of the patches.

    Parameters
    ----------
    embedding : ndarray of shape (n, d), float32
        Of all patches, as they are.
    proba : ndarray of shape (n,), float32
        Its own head's probability of carcinoma.
    embedding_8, proba_8 : ndarray
        The same for the tested patches alone, means over the eight views.
    params : int
        Weights of the encoder, those of the head not counted.
    seconds : float
        On the clock: training and embeddings.
    """

    embedding: np.ndarray
    proba: np.ndarray
    embedding_8: np.ndarray
    proba_8: np.ndarray
    params: int
    seconds: float


def train(trial, pixels, targets, rows, *, weights=None, say=print):
    """Train the network of a trial and embed all patches.

    Parameters
    ----------
    trial : Trial
    pixels : ndarray of shape (n, 50, 50, 3), uint8
    targets : ndarray of shape (n_training, 2), float32
        What is to be learnt of each training patch: rows that add up to 1.
    rows : (ndarray, ndarray)
        Training and tested patches.
    weights : Path or None
        ImageNet weights, for a trial that starts from them.
    say : callable
        Called with a sentence after each epoch.

    Returns
    -------
    Trained
    """
    keras, started = import_keras(), time.perf_counter()
    keras.utils.set_random_seed(trial.seed)
    # The order in which layers are made is the order in which they draw their first weights.
    encoder = imagenet_encoder(keras, trial, weights) if trial.imagenet else residual_encoder(keras, trial)
    dropout, logits = keras.layers.Dropout(_DROPOUT), keras.layers.Dense(2, name="logits")
    make = siamese if trial.similarity else supervised
    model, loss = make(keras, trial, encoder, dropout, logits)
    learn(model, loss, trial, pixels[rows[0]], targets, say)
    proba = keras.ops.softmax(logits(encoder.output))
    asked = keras.Model(encoder.input, [encoder.output, proba])
    embedding, own = embed(asked, pixels, trial.input_size)
    embedding_8, own_8 = embed(asked, pixels[rows[1]], trial.input_size, views=VIEWS)
    seconds = time.perf_counter() - started
    return Trained(embedding, own[:, 1], embedding_8, own_8[:, 1], encoder.count_params(), seconds)


# --- networks --------------------------------------------------------------------------------------------------------


def residual_encoder(keras, trial):
    """The residual network of histofeat, from pixels to its embedding, in the widths and blocks of a trial.

    Notes
    -----
    With ``trial.stages`` the embedding is, for each stage, the mean of the feature map and that of its square, all
    normalised: what is left of textures and colours that later stages do not pass on.
    """
    layers = keras.layers
    pixels, scaled = _scaled(keras, trial.input_size)
    maps = residual_stages(keras, scaled, widths=trial.widths, blocks=trial.blocks)
    if not trial.stages:
        return keras.Model(pixels, layers.GlobalAveragePooling2D()(maps[-1]), name="encoder")
    moments = [layers.GlobalAveragePooling2D()(one) for x in maps for one in (x, layers.Multiply()([x, x]))]
    embedding = layers.BatchNormalization(momentum=0.9)(layers.Concatenate()(moments))
    return keras.Model(pixels, embedding, name="encoder")


def imagenet_encoder(keras, trial, weights):
    """MobileNetV2 0.35 from ImageNet weights; its normalisations keep their means and deviations."""
    size = trial.input_size
    base = keras.applications.MobileNetV2(
        alpha=0.35, include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    base.load_weights(weights)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    pixels, scaled = _scaled(keras, size)
    return keras.Model(pixels, base(scaled, training=False), name="encoder")


def _scaled(keras, size):
    pixels = keras.Input((size, size, 3), dtype="uint8")
    return pixels, keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(pixels)


def supervised(keras, trial, encoder, dropout, logits):
    """Model and loss of a trial that learns from labels alone."""
    proba = keras.ops.softmax(logits(dropout(encoder.output)))
    return keras.Model(encoder.input, proba), "categorical_crossentropy"


def siamese(keras, trial, encoder, dropout, logits):
    """Model and loss of a trial that learns to predict one augmented view of a patch from another.

    Notes
    -----
    SimSiam (https://doi.org/10.1109/CVPR46437.2021.01549) with a smaller head. The output holds, side by side, both
    views' class probabilities and the predictions and projections that the loss compares.
    """
    ops, layers = keras.ops, keras.layers
    shape = (trial.input_size, trial.input_size, 3)
    first, second = keras.Input(shape, dtype="uint8"), keras.Input(shape, dtype="uint8")
    projection = keras.Sequential([
        layers.Dense(PROJECTED, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Dense(PROJECTED, use_bias=False), layers.BatchNormalization(scale=False, center=False),
    ])  # fmt: skip
    prediction = keras.Sequential([
        layers.Dense(BOTTLENECK, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.Dense(PROJECTED)
    ])  # fmt: skip
    seen = [encoder(first), encoder(second)]
    projected = [projection(one) for one in seen]
    predicted = [prediction(one) for one in projected]
    proba = [ops.softmax(logits(dropout(one))) for one in seen]
    # Without the stopped gradient all patches would come to lie at one point.
    targets = [ops.stop_gradient(one) for one in projected]
    parts = [*proba, predicted[0], targets[1], predicted[1], targets[0]]
    return keras.Model([first, second], ops.concatenate(parts, axis=1)), siamese_loss(ops, trial)


def siamese_loss(ops, trial):
    """Loss on what `siamese` puts side by side: cross-entropy of both views, and the cosine with its sign turned."""

    def entropy(labels, proba):
        return -ops.sum(labels * ops.log(proba + _LEAST), axis=1)

    def cosine(one, other):
        return ops.sum(ops.normalize(one, axis=1) * ops.normalize(other, axis=1), axis=1)

    def loss(labels, output):
        first, second = output[:, :2], output[:, 2:4]
        compared = [output[:, 4 + k * PROJECTED : 4 + (k + 1) * PROJECTED] for k in range(4)]
        unlike = -(cosine(compared[0], compared[1]) + cosine(compared[2], compared[3])) / 2
        labelled = (entropy(labels, first) + entropy(labels, second)) / 2
        return trial.supervision * labelled + trial.similarity * unlike

    return loss


# --- training --------------------------------------------------------------------------------------------------------


def learn(model, loss, trial, pixels, targets, say):
    """Run all epochs; the averaged weights, where there are some, stay in the model."""
    recipe = trial.recipe
    size = min(recipe.batch_size, len(pixels))
    steps = len(pixels) // size
    forget_sooner(model, recipe.epochs * steps)
    optimizer = make_optimizer(recipe, recipe.learning_rate, recipe.epochs * steps)
    model.compile(optimizer, loss, jit_compile=False)
    rates = learning_rates(recipe.schedule, recipe.learning_rate, recipe.epochs * steps, warmup=recipe.warmup)
    # One thread makes the next batches while the network learns from this one.
    with ThreadPoolExecutor(1) as pool:
        for epoch, its_rates in enumerate(rates.reshape(recipe.epochs, steps)):
            order = np.random.default_rng((trial.seed, 99, epoch)).permutation(len(pixels))[: steps * size]
            jobs = [(epoch, number, rows) for number, rows in enumerate(order.reshape(steps, size))]
            batches = pool.map(lambda job: make_batch(trial, pixels, targets, *job), jobs)
            losses = []
            for rate, (seen, labels) in zip(its_rates, batches, strict=True):
                optimizer.learning_rate = rate
                model.reset_metrics()
                losses.append(float(np.mean(model.train_on_batch(seen, labels))))
            say(f"epoch {epoch + 1} of {recipe.epochs}: loss {np.mean(losses):.4f}")
    if recipe.averaging:
        optimizer.finalize_variable_values(model.trainable_variables)


def make_batch(trial, pixels, targets, epoch, number, rows):
    """One batch: augmented patches, or pairs of them, and what is to be learnt."""
    rng = np.random.default_rng((trial.seed, epoch, number))
    seen, labels = augment(pixels[rows], rng, trial.augmentation), targets[rows]
    if trial.similarity:
        other = augment(pixels[rows], rng, trial.augmentation)
        return [resized(seen, trial.input_size), resized(other, trial.input_size)], labels
    if trial.mixup:
        # One number that nothing uses: the trials were run by code that drew it, and mixup draws after it.
        rng.random()
        seen, labels = mixed(seen, labels, trial.mixup, rng)
    return resized(seen, trial.input_size), labels


def mixed(pixels, labels, alpha, rng):
    """Mixup (arXiv:1710.09412): each patch and its label with a smaller part of another's of the batch.

    Parameters
    ----------
    pixels : ndarray of shape (n, H, W, 3), uint8
    labels : ndarray of shape (n, 2), float32
    alpha : float above 0
        Both parameters of the beta distribution.
    rng : numpy.random.Generator

    Returns
    -------
    pixels, labels : ndarray
        Of the same shapes; pixels rounded.
    """
    part = rng.beta(alpha, alpha, (len(pixels), 1, 1, 1)).astype(np.float32)
    part = np.maximum(part, 1 - part)
    other = rng.permutation(len(pixels))
    of_labels = part[:, :, 0, 0]
    blended = np.rint(part * pixels + (1 - part) * pixels[other]).astype(np.uint8)
    return blended, of_labels * labels + (1 - of_labels) * labels[other]


def resized(pixels, size):
    """Patches in the size of a network's input."""
    if size == PATCH_PX:
        return pixels
    return np.stack([fit_patch(patch, size, PATCH_PX) for patch in pixels])


def embed(model, pixels, size, views=VIEWS[:1]):
    """Embeddings and class probabilities of patches, means over `views`."""
    embedding = proba = 0
    for view in views:
        seen = resized(np.ascontiguousarray(take_view(pixels, view)), size)
        found = model.predict(seen, batch_size=256, verbose=0)
        embedding, proba = embedding + found[0] / len(views), proba + found[1] / len(views)
    return embedding, proba
