"""What a report says of encoders that know patients: who was not tested for it, and which were trained anew."""

from histofeat.evaluation import RETRAINED
from histofeat.reporting.blocks import Notice, Text

__all__ = ["encoder_blocks", "encoder_notices"]

_FLATTERED = (
    "Training patients stay, those whom an encoder knows among them: heads, thresholds and calibration are chosen in "
    "part on features that look better than those of new patients."
)


def encoder_notices(payload):
    """Give what a reader must know of the encoders before any number.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`.

    Returns
    -------
    notices : list of Notice
        Empty where everybody was tested, and no encoder was trained anew.
    """
    notices, names = [], _trained_anew(payload)
    left_out = payload["protocol"].get("left_out")
    if left_out:
        sentences = (_who_was_left_out(left_out), *_dropped_folds(left_out), _FLATTERED)
        notices.append(Notice("warning", "Patients whom an encoder knows were not tested", sentences))
    if names:
        words = (f"Feature sets: {', '.join(names)}. {RETRAINED}",)
        notices.append(Notice("info", "Encoders were trained anew in each fold", words))
    return notices


def encoder_blocks(payload):
    """Give the paragraph on the encoders for how the numbers were made.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`.

    Returns
    -------
    blocks : list of Text
        Empty where everybody was tested, and no encoder was trained anew.

    Examples
    --------
    >>> encoder_blocks({"protocol": {}, "results": []})
    []
    """
    left_out, names = payload["protocol"].get("left_out"), _trained_anew(payload)
    words = [_who_was_left_out(left_out), *_dropped_folds(left_out)] if left_out else []
    if names:
        words.append(f"Trained anew on the training patients of each fold: the encoders of {', '.join(names)}.")
    return [Text(" ".join(words))] if words else []


def _who_was_left_out(left_out):
    gone, rest = left_out["patients"], left_out["patients_tested"]
    knowing = "; ".join(f"{encoder} knows {count:,}" for encoder, count in left_out["encoders"].items())
    return (
        f"{gone:,} of {gone + rest:,} patients ({left_out['patches']:,} patches) were left out of the tests of all "
        f"models, since an encoder was trained on images of theirs, from {', '.join(left_out['trained_on'])} "
        f"({knowing}). All models were tested on the same {rest:,} patients ({left_out['patches_tested']:,} patches). "
        "No score here compares with one on all patients."
    )


def _dropped_folds(left_out):
    if left_out["folds"]:
        yield f"Folds in which nobody remained to be tested are gone: {', '.join(map(str, left_out['folds']))}."


def _trained_anew(payload):
    return list(dict.fromkeys(result["name"] for result in payload["results"] if RETRAINED in result["notes"]))
