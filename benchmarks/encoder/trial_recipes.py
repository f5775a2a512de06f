"""The trials that the encoder's recipe was chosen by: what each of them does otherwise."""

from dataclasses import dataclass, replace

from histofeat.networks import BLOCKS, RESNET_SMALL, STANDARD, WIDTHS, Augmentation, Recipe


@dataclass(frozen=True)
class Trial:
    """One way to train an encoder.

    Parameters
    ----------
    name : str
    words : str
        What it is, for the table.
    recipe : Recipe or None
        None for no network at all.
    augmentation : Augmentation
    mixup : float from 0
        Parameter of mixup's beta distribution; 0 for none.
    teacher : float in [0, 1]
        Part of each label that an out-of-fold XGBoost on handcrafted features gives.
    supervision, similarity : float from 0
        Weights of the labels and of SimSiam's cosine in the loss; without a cosine the network sees no pairs of views.
    widths, blocks : tuple of int
        Channels of the residual network, and its blocks, in each of its three stages.
    stages : bool
        Whether the embedding holds means and mean squares of all three stages.
    imagenet : bool
        Whether MobileNetV2 0.35 with ImageNet weights stands in its place.
    input_size : int
        Side in px of what the network sees.
    seed : int
        Of the first weights, the batches and the augmentation.
    """

    name: str
    words: str
    recipe: Recipe | None
    augmentation: Augmentation = STANDARD
    mixup: float = 0.0
    teacher: float = 0.0
    supervision: float = 1.0
    similarity: float = 0.0
    widths: tuple[int, ...] = WIDTHS
    blocks: tuple[int, ...] = BLOCKS
    stages: bool = False
    imagenet: bool = False
    input_size: int = 50
    seed: int = 0


PLAIN = RESNET_SMALL["standard"]
AVERAGED = replace(PLAIN, averaging=0.99)
LONG = replace(PLAIN, epochs=40)
WITH_LIGHT = Augmentation(stain_jitter=0.25, stain_shift=0.05, brightness=0.35)
FROM_IMAGENET = replace(AVERAGED, learning_rate=1e-3)
_WORDS = "adamw 0.004, one cycle, batch 64, weight decay 0.001; flips, turns, stain jitter 0.15, shift 0.03"
_FROM_IMAGENET = "MobileNetV2 0.35 from ImageNet at 96 px, normalisations kept; adamw 0.001, one cycle, batch 64"

#: Every trial by name, in the order of the table.
TRIALS = {
    trial.name: trial
    for trial in (
        Trial("handcrafted", "no network: color, LBP, Haralick and PFTAS features with XGBoost", None),
        Trial("supervised", f"residual network 32-64-128 at 50 px; {_WORDS}", PLAIN),
        Trial(
            "smooth_mixup", "supervised, with label smoothing 0.1, mixup 0.4 and averaged weights",
            replace(AVERAGED, label_smoothing=0.1), mixup=0.4,
        ),
        Trial(
            "soft_labels",
            "supervised, labels half those of an out-of-fold XGBoost on handcrafted features, averaged weights",
            AVERAGED, teacher=0.5,
        ),
        Trial(
            "simsiam", "no labels: SimSiam on pairs of augmented views", replace(PLAIN, epochs=5),
            supervision=0.0, similarity=1.0,
        ),
        Trial(
            "both", "supervised on pairs of augmented views, with half SimSiam's cosine in the loss, averaged weights",
            replace(AVERAGED, epochs=8), similarity=0.5,
        ),
        Trial(
            "wide", "supervised, of width 48-96-192, with label smoothing 0.05 and averaged weights",
            replace(AVERAGED, label_smoothing=0.05), widths=(48, 96, 192),
        ),
        Trial(
            "imagenet", f"{_FROM_IMAGENET}, label smoothing 0.1, averaged weights; augmented as supervised",
            replace(FROM_IMAGENET, epochs=5, label_smoothing=0.1), imagenet=True, input_size=96,
        ),
        Trial(
            "imagenet_mixup",
            f"{_FROM_IMAGENET}, label smoothing 0.05, mixup 0.4, averaged weights; stain jitter 0.25, shift 0.05",
            replace(FROM_IMAGENET, epochs=6, label_smoothing=0.05), Augmentation(stain_jitter=0.25, stain_shift=0.05),
            mixup=0.4, imagenet=True, input_size=96,
        ),
        Trial(
            "wide_stain", "supervised, with stain jitter 0.3, shift 0.2", PLAIN,
            Augmentation(stain_jitter=0.3, stain_shift=0.2),
        ),
        Trial(
            "light", "supervised, with stain jitter 0.25, shift 0.05, brightness 0.35", PLAIN, WITH_LIGHT,
        ),
        Trial("small_input", "supervised, patches reduced to 32 px", PLAIN, input_size=32),
        Trial("large_input", "supervised, patches enlarged to 72 px", PLAIN, input_size=72),
        Trial("light_long", "light, 40 epochs", LONG, WITH_LIGHT),
        Trial(
            "light_smooth", "light, 40 epochs, with label smoothing 0.05 and averaged weights",
            replace(LONG, averaging=0.99, label_smoothing=0.05), WITH_LIGHT,
        ),
        Trial(
            "light_stages",
            "light, 40 epochs, averaged weights; the embedding holds means and mean squares of all three stages",
            replace(LONG, averaging=0.99), WITH_LIGHT, stages=True,
        ),
        Trial(
            "light_deep", "light, 40 epochs, with 1, 2 and 2 blocks in the three stages, patches reduced to 32 px",
            LONG, WITH_LIGHT, blocks=(1, 2, 2), input_size=32,
        ),
    )
}  # fmt: skip
