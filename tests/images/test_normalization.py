"""Stain normalisers: against loops and known stains, what they leave alone, and whose statistics count."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from histofeat import GroupLeakageError, IDCPipeline, LBPHistogram, PatchError
from histofeat.features import extract
from histofeat.images import (
    NORMALIZERS,
    MacenkoNormalizer,
    ReinhardNormalizer,
    as_images,
    is_tissue,
    make_normalizer,
    normalized_images,
)
from histofeat.images._macenko import find_stains
from histofeat.images._normalization import MINIMUM_PX, TISSUE_DENSITY
from histofeat.images._perturbations import perturb, shift_stains
from histofeat.images._reinhard import LAB_FROM_LOG_LMS, LMS_FROM_RGB
from histofeat.models import SavedModel, predict_images

KINDS = [ReinhardNormalizer, MacenkoNormalizer]
PURE = np.array([[0.55, 0.72, 0.42], [0.12, 0.85, 0.51]])
PURE /= np.linalg.norm(PURE, axis=1, keepdims=True)


def stained(n=12, size=30, stains=PURE, strength=(1.5, 1.1), seed=0):
    """Patches whose stains and concentrations are known: (patches, concentrations)."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet((0.25, 0.25), (n, size, size))
    amount = share * rng.uniform(0.4, 1.0, (n, size, size, 1)) * strength
    return np.clip(np.rint(255 * np.exp(-amount @ stains)), 0, 255).astype(np.uint8), amount


@pytest.fixture(scope="module")
def tissue():
    return stained()[0]


@pytest.fixture(scope="module")
def slides(cohort):
    """Patches of a few made-up patients in memory, all of one size, and their patients."""
    images = as_images(cohort.X)
    patches = [images.decode(i, images.content(i))[0] for i in range(len(images))]
    whole = [i for i, patch in enumerate(patches) if patch.shape == (50, 50, 3)]
    return np.stack([patches[i] for i in whole]), cohort.patients[whole]


# --- against loops -----------------------------------------------------------------------------------------------


def test_tissue_is_what_the_mean_density_says():
    rng = np.random.default_rng(0)
    pixels = np.vstack([rng.integers(0, 256, (3000, 3)), rng.integers(195, 240, (3000, 3))]).astype(np.uint8)
    density = -np.log(np.maximum(pixels, 1) / 255.0).mean(axis=1)
    clear = np.abs(density - TISSUE_DENSITY) > 1e-7
    assert 0.1 < (density[3000:] >= TISSUE_DENSITY).mean() < 0.9
    np.testing.assert_array_equal(is_tissue(pixels)[clear], (density >= TISSUE_DENSITY)[clear])


def lab_of(pixel):
    """Reinhard's l, alpha, beta of one pixel, number by number."""
    lms = [sum(m * max(int(v), 1) for m, v in zip(row, pixel, strict=True)) for row in LMS_FROM_RGB]
    red, green, blue = (math.log10(value) for value in lms)
    return (red + green + blue) / math.sqrt(3), (red + green - 2 * blue) / math.sqrt(6), (red - green) / math.sqrt(2)


def test_reinhard_is_the_paper_pixel_by_pixel(tissue):
    reference, patch = tissue[:3], shift_stains(tissue[3:4], (1.3, 0.8))[0]
    normalizer = ReinhardNormalizer().fit(reference)
    moments = []
    for image in reference:
        labs = np.array([lab_of(pixel) for pixel in image.reshape(-1, 3) if is_tissue(pixel)])
        moments.append(np.concatenate([labs.mean(axis=0), labs.std(axis=0)]))
    expected = np.median(moments, axis=0)
    np.testing.assert_allclose(normalizer.reference_, expected, atol=2e-5)
    labs = np.array([lab_of(pixel) for pixel in patch.reshape(-1, 3) if is_tissue(pixel)])
    mean, std = labs.mean(axis=0), labs.std(axis=0)
    back, rgb = np.linalg.inv(LAB_FROM_LOG_LMS), np.linalg.inv(LMS_FROM_RGB)
    out = np.empty(patch.shape)
    for at in np.ndindex(patch.shape[:2]):
        lab = (np.array(lab_of(patch[at])) - mean) * expected[3:] / std + expected[:3]
        moved = rgb @ 10.0 ** (back @ lab)
        density = -np.log(np.maximum(patch[at], 1) / 255.0).mean()
        out[at] = patch[at] + min(max((density - 0.05) / 0.10, 0), 1) * (moved - patch[at])
    difference = np.abs(np.clip(out, 0, 255) - normalizer.transform(patch[None])[0])
    assert difference.max() < 0.51  # rounding, and single precision


def test_reinhard_reaches_the_reference(tissue):
    normalizer = ReinhardNormalizer().fit(tissue)
    moved = normalizer.transform(shift_stains(tissue, (1.2, 0.9)))
    for patch in moved:
        np.testing.assert_allclose(normalizer.statistics(patch), normalizer.reference_, atol=0.01)


def test_macenko_finds_the_stains_that_were_mixed():
    for angle in (0.0, 0.1, 0.2):
        stains = PURE + np.array([[angle, 0, 0], [0, 0, angle]])
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        patches, amount = stained(1, 120, stains)
        density = -np.log(np.maximum(patches.reshape(-1, 3), 1) / 255.0)
        found = find_stains(density)
        assert np.degrees(np.arccos(np.clip((found * stains).sum(axis=1), -1, 1))).max() < 1.5
        normalizer = MacenkoNormalizer().fit(patches)
        np.testing.assert_allclose(normalizer.stains_, stains, atol=0.02)
        strength = np.quantile(amount.reshape(-1, 2), 0.99, axis=0)
        np.testing.assert_allclose(normalizer.concentrations_, strength, rtol=0.03)


def test_macenko_finds_them_as_angles_from_a_singular_value_decomposition_do():
    rng = np.random.default_rng(3)
    density = np.abs(rng.dirichlet((0.4, 0.4), 999) @ PURE + rng.normal(0, 0.03, (999, 3)))
    _, _, vectors = np.linalg.svd(density, full_matrices=False)
    plane = vectors[:2] * np.sign(vectors[0].sum())
    angles = np.arctan2(density @ plane[1], density @ plane[0])
    rays = []
    for share in (1, 99):
        at = np.percentile(angles, share, method="nearest")
        ray = np.maximum(np.cos(at) * plane[0] + np.sin(at) * plane[1], 0)
        rays.append(ray / np.linalg.norm(ray))
    rays.sort(key=lambda ray: -ray[0])
    np.testing.assert_allclose(find_stains(density), rays, atol=1e-9)


def test_macenko_moves_concentrations_pixel_by_pixel(tissue):
    normalizer = MacenkoNormalizer().fit(tissue)
    patch = stained(1, stains=np.array([[0.6, 0.7, 0.39], [0.2, 0.83, 0.52]]), strength=(2.2, 0.9), seed=5)[0][0]
    source = normalizer.statistics(patch)
    stains, strength = source[:6].reshape(2, 3), source[6:]
    expected = np.empty(patch.shape)
    for at in np.ndindex(patch.shape[:2]):
        density = -np.log(np.maximum(patch[at], 1) / 255.0)
        amount, *_ = np.linalg.lstsq(stains.T, density, rcond=None)
        rest = density - amount @ stains
        new = amount * normalizer.concentrations_ / strength
        expected[at] = 255 * np.exp(-(new @ normalizer.stains_ + rest))
    difference = np.abs(np.clip(expected, 0, 255) - normalizer.transform(patch[None])[0])
    assert difference.max() < 0.51


@pytest.mark.parametrize(
    ("kind", "condition", "most"),
    [
        (ReinhardNormalizer, ("stain_strength", -3), 0.6),
        (ReinhardNormalizer, ("stain_strength", 3), 0.6),
        (MacenkoNormalizer, ("stain_strength", -3), 0.15),
        (MacenkoNormalizer, ("stain_balance", -3), 0.15),
        (MacenkoNormalizer, ("stain_balance", 3), 0.2),
    ],
)
def test_a_shifted_slide_comes_back_towards_what_it_was(kind, condition, most, slides):
    patches, patients = slides
    before, after = [], []
    for patient in np.unique(patients)[:6]:
        own = patches[patients == patient]
        normalizer = kind("patient").fit(own, groups=[patient] * len(own))
        shifted = perturb(own, *condition)
        back = normalizer.transform(shifted, groups=[patient] * len(own))
        before.append(np.abs(shifted.astype(float) - own).mean())
        after.append(np.abs(back.astype(float) - own).mean())
    assert max(np.divide(after, before)) < most


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_like_the_reference_stays(kind, tissue):
    normalizer = kind().fit(tissue[:1])
    difference = np.abs(normalizer.transform(tissue[:1]).astype(int) - tissue[:1])
    assert difference.max() <= 1


# --- what is left alone ------------------------------------------------------------------------------------------


def odd_patches():
    rng = np.random.default_rng(1)
    single = np.clip(np.rint(255 * np.exp(-rng.uniform(0.3, 1.5, (50, 50, 1)) * PURE[0])), 0, 255).astype(np.uint8)
    little = np.full((50, 50, 3), 245, dtype=np.uint8)
    little[:4, :50] = stained(1, 50)[0][0, :4]
    return {
        "white": np.full((50, 50, 3), 255, dtype=np.uint8),
        "empty slide": rng.integers(236, 248, (50, 50, 3)).astype(np.uint8),
        "black": np.zeros((50, 50, 3), dtype=np.uint8),
        "flat": np.full((50, 50, 3), (180, 120, 170), dtype=np.uint8),
        "sliver": stained(1, 50)[0][0, :, :1],
        "one pixel": np.full((1, 1, 3), 90, dtype=np.uint8),
        "single stain": single,
        "little tissue": little,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", odd_patches())
def test_patches_that_tell_nothing_stay_as_they_are(kind, name, tissue):
    normalizer = kind().fit(tissue)
    patch = odd_patches()[name]
    if name == "single stain" and kind is ReinhardNormalizer:  # it has a mean and a spread like any other
        assert not np.isnan(normalizer.statistics(patch)).any()
        return
    assert np.isnan(normalizer.statistics(patch)).all()
    np.testing.assert_array_equal(normalizer.transform([patch])[0], patch)


def test_ink_is_no_stain(tissue):
    normalizer = MacenkoNormalizer().fit(tissue)
    ink = np.array([[0.9, 0.1, 0.4], [0.1, 0.85, 0.5]])
    inked = stained(1, stains=ink / np.linalg.norm(ink, axis=1, keepdims=True))[0]
    assert not np.isnan(normalizer.statistics(inked[0])).any()
    np.testing.assert_array_equal(normalizer.transform(inked), inked)


@pytest.mark.parametrize("kind", KINDS)
def test_white_stays_white_beside_tissue(kind, tissue):
    patch = tissue[0].copy()
    patch[:10] = 255
    moved = kind().fit(tissue[1:]).transform(shift_stains(patch[None], (0.7, 1.3)))[0]
    assert (moved[:10] == 255).all()
    assert (moved[10:] != patch[10:]).any()


def test_gains_are_held():
    rng = np.random.default_rng(0)
    loud, quiet = (
        np.clip(rng.normal((170, 110, 170), spread, (4, 40, 40, 3)), 0, 255).astype(np.uint8) for spread in (30, 4)
    )
    for gain in (1.0, 2.0):
        normalizer = ReinhardNormalizer(max_gain=gain).fit(loud)
        was, now = (normalizer.statistics(patch)[3:] for patch in (quiet[0], normalizer.transform(quiet)[0]))
        np.testing.assert_allclose(now, gain * was, rtol=0.1)
    patches = stained(4, strength=(1.5, 1.1))[0]
    pale = stained(4, strength=(0.5, 0.4))[0]
    normalizer = MacenkoNormalizer(max_gain=1.5).fit(patches)
    was, now = (normalizer.statistics(patch)[6:] for patch in (pale[0], normalizer.transform(pale)[0]))
    np.testing.assert_allclose(now, 1.5 * was, rtol=0.1)


def test_pure_colours_and_huge_gains_do_not_overflow(tissue):
    pure = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 255], [0, 255, 255], [255, 255, 0]], dtype=np.uint8
    )
    macenko = MacenkoNormalizer(max_gain=50).fit(tissue)
    source = macenko.statistics(tissue[0])
    source[6] /= 40
    density = -np.log(np.maximum(pure, 1) / 255.0)
    amounts = density @ np.linalg.pinv(source[:6].reshape(2, 3))
    gain = macenko.concentrations_ / source[6:]
    minus = -(amounts * gain @ macenko.stains_ + density - amounts @ source[:6].reshape(2, 3))
    assert minus.max() > np.log(2**31 / 255)  # beyond the integers that are rounded on the way
    expected = 255 * np.exp(np.minimum(minus, 0))
    assert np.abs(macenko.normalize(pure[None], source)[0] - expected).max() < 0.51
    reinhard = ReinhardNormalizer(max_gain=50).fit(tissue)
    source = reinhard.statistics(tissue[0])
    source[3:] /= 40
    assert reinhard.normalize(np.full((1, 1, 3), 215, dtype=np.uint8), source).tolist() == [[[255] * 3]]


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), low=st.integers(0, 254), seed=st.integers(0, 99))
def test_any_patch_comes_out_as_a_patch(height, width, low, seed):
    rng = np.random.default_rng(seed)
    patch = rng.integers(low, 256, (height, width, 3), dtype=np.uint8)
    for kind in KINDS:
        normalizer = kind().fit(stained(2)[0])
        moved = normalizer.normalize(patch)
        assert moved.shape == patch.shape
        assert moved.dtype == np.uint8
        if height * width < MINIMUM_PX:
            np.testing.assert_array_equal(moved, patch)


# --- whose statistics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", ["patch", "patient"])
def test_every_patient_counts_once_in_the_reference(kind, unit, slides):
    patches, patients = slides
    few = np.isin(patients, np.unique(patients)[:5])
    patches, patients = patches[few], patients[few]
    once = kind(unit).fit(patches, groups=patients)
    own = np.flatnonzero(patients == patients[0])
    often = np.concatenate([np.arange(len(patients)), np.tile(own, 4)])
    again = kind(unit).fit(patches[often], groups=patients[often])
    np.testing.assert_allclose(again.reference_, once.reference_, atol=2e-3)
    if unit == "patch":
        pooled = kind(unit).fit(patches[often])
        assert np.abs(pooled.reference_ - once.reference_).max() > 4e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_patient_is_a_unit(kind, slides):
    patches, patients = slides
    normalizer = kind("patient").fit(patches, groups=patients)
    order = np.random.default_rng(0).permutation(len(patches))
    whole = normalizer.transform(patches, groups=patients)
    mixed = normalizer.transform(patches[order], groups=patients[order]).astype(int)
    assert np.abs(mixed - whole[order]).max() <= 1  # sums in another order
    own = patients == patients[0]
    np.testing.assert_array_equal(normalizer.transform(patches[own], groups=patients[own]), whole[own])
    pixels = patches[own].reshape(1, -1, 3)
    source = normalizer.statistics(pixels)
    np.testing.assert_array_equal(normalizer.normalize(patches[own][0], source), whole[own][0])
    assert (whole != kind("patch").fit(patches, groups=patients).transform(patches)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_patches_depend_on_nothing_but_themselves(kind, slides):
    patches, patients = slides
    patches = patches[:40]
    normalizer = kind().fit(patches, groups=patients[:40])
    whole = normalizer.transform(patches)
    np.testing.assert_array_equal(np.stack([normalizer.transform(patch[None])[0] for patch in patches]), whole)
    threads = clone(normalizer).set_params(n_jobs=2).fit(patches, groups=patients[:40])
    np.testing.assert_array_equal(threads.reference_, normalizer.reference_)
    np.testing.assert_array_equal(threads.transform(patches), whole)
    frozen = np.asfortranarray(patches)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(normalizer.transform(frozen), whole)
    assert normalizer.n_units_ == 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_patch_gives_the_turned_result(kind, slides):
    patches, patients = slides
    normalizer = kind().fit(patches, groups=patients)
    turned = np.ascontiguousarray(np.rot90(patches[:20], axes=(1, 2)))
    back = np.rot90(normalizer.transform(turned), -1, axes=(1, 2)).astype(int)
    assert np.abs(back - normalizer.transform(patches[:20])).max() <= 1  # sums in another order


# --- an estimator like others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_clones_pickles_and_stands_in_a_pipeline_of_scikit_learn(kind, tissue):
    normalizer = kind("patch", max_gain=1.5)
    assert clone(normalizer).get_params() == normalizer.get_params()
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        normalizer.transform(tissue)
    moved = normalizer.fit_transform(tissue)
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(normalizer)).transform(tissue), moved)
    pipe = make_pipeline(kind(max_gain=1.5), LBPHistogram())
    np.testing.assert_array_equal(pipe.fit_transform(tissue), LBPHistogram().transform(moved))
    unequal = normalizer.transform([tissue[0], tissue[1, :20]])
    assert [patch.shape for patch in unequal] == [(30, 30, 3), (20, 30, 3)]


def test_names_are_those_of_the_classes():
    for name, (_, kind) in NORMALIZERS.items():
        assert type(make_normalizer(name)).__name__ == kind
    assert make_normalizer("macenko", unit="patient").unit == "patient"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: make_normalizer("reinhart"), ValueError, "got 'reinhart'. Did you mean 'reinhard'"),
        (lambda t: make_normalizer("reinhard", units="patch"), ValueError, "normalizer__units: .* Did you mean 'unit'"),
        (lambda t: ReinhardNormalizer("slide").fit(t), ValueError, r"ReinhardNormalizer\.unit: .* got 'slide'"),
        (lambda t: MacenkoNormalizer(min_tissue=0).fit(t), ValueError, r"MacenkoNormalizer\.min_tissue: .* got 0"),
        (lambda t: MacenkoNormalizer(max_gain=0.5).fit(t), ValueError, r"max_gain: .* got 0\.5"),
        (lambda t: MacenkoNormalizer("patient").fit(t), GroupLeakageError, r"MacenkoNormalizer\.groups: .* got None"),
        (lambda t: ReinhardNormalizer().fit(t, groups=["a"]), GroupLeakageError, r"for each of 12 patches, got shape"),
        (
            lambda t: ReinhardNormalizer().fit(np.full_like(t, 255)),
            PatchError,
            "tissue to learn a stain from, got none",
        ),
        (lambda t: ReinhardNormalizer().fit(t.astype(float)), PatchError, "got float64"),
    ],
)
def test_what_it_cannot_use_is_refused(call, error, message, tissue):
    with pytest.raises(error, match=message):
        call(tissue)


def test_patients_are_needed_again_to_transform(tissue):
    normalizer = ReinhardNormalizer("patient").fit(tissue, groups=list("aabbccddeeff"))
    with pytest.raises(GroupLeakageError, match="expected the patient of each patch with unit='patient', got None"):
        normalizer.transform(tissue)


def test_real_slides_come_nearer_to_each_other(real_data):
    from histofeat import load_idc

    idc = load_idc(real_data / "idc")
    rows = [np.flatnonzero(idc.patients == patient)[:20] for patient in np.unique(idc.patients)[:15]]
    few = idc.subset(np.concatenate(rows))
    for kind in KINDS:
        normalizer = kind("patient").fit(few.X, groups=few.patients)
        moved = as_images(normalizer.transform(few.X, groups=few.patients))
        codes = normalizer._codes(few.patients, len(few))
        was, now = (normalizer._unit_statistics(images, codes) for images in (as_images(few.X), moved))
        spread = [np.nanstd(found, axis=0)[-2:].sum() for found in (was, now)]
        assert spread[1] < 0.5 * spread[0]


# --- what is left alone is counted -------------------------------------------------------------------------------

LITTLE, FAR = "stain unchanged (too little tissue or one colour)", "stain unchanged (far from the reference)"


@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_stay_as_they_are_are_counted_with_the_reason(kind, tissue):
    normalizer = kind().fit(tissue)
    assert not hasattr(normalizer, "unchanged_")
    normalizer.transform(tissue)
    assert normalizer.unchanged_ == {}
    patches = [*tissue, odd_patches()["white"], odd_patches()["flat"]]
    normalizer.transform(patches)
    assert normalizer.unchanged_ == {LITTLE: 2}
    images = normalized_images(patches, normalizer)
    assert extract([LBPHistogram()], images).conversions == {LITTLE: 2}


@pytest.mark.parametrize("unit", ["patch", "patient"])
def test_the_stains_of_something_else_are_counted(unit, tissue):
    owners = ["a"] * len(tissue)
    normalizer = MacenkoNormalizer(unit).fit(tissue, groups=owners)
    ink = np.array([[0.9, 0.1, 0.4], [0.1, 0.85, 0.5]])
    inked = stained(3, stains=ink / np.linalg.norm(ink, axis=1, keepdims=True))[0]
    moved = normalizer.transform([*tissue, *inked], groups=[*owners, *"bbb"])
    np.testing.assert_array_equal(moved[-3:], inked)
    assert normalizer.unchanged_ == {FAR: 3}


def test_conversions_of_files_are_counted_beside_those_of_the_stain(tissue, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), tissue[0][..., 0])
    normalizer = ReinhardNormalizer().fit(tissue)
    images = normalized_images([tmp_path / "a.png", tmp_path / "a.png"], normalizer)
    assert dict(extract([LBPHistogram()], images).conversions)["gray"] == 2


def test_a_pipeline_counts_the_patches_of_its_last_answer(tissue):
    X = np.concatenate([tissue, shift_stains(tissue, (0.7, 1.3))])
    pipeline = IDCPipeline("color", "logistic", normalizer="macenko").fit(X, [0] * len(tissue) + [1] * len(tissue))
    pipeline.predict_proba([np.full((30, 30, 3), 255, dtype=np.uint8), tissue[0]])
    assert pipeline.normalizer_.unchanged_ == {LITTLE: 1}
    pipeline.predict(tissue)
    assert pipeline.normalizer_.unchanged_ == {}
    model = SavedModel(pipeline, {"class_names": ["a", "b"], "patch_size": [30, 30]})
    white = np.full((60, 30, 3), 255, dtype=np.uint8)
    assert dict(predict_images(model, [white, tissue[0], tissue[1]]).conversions)[LITTLE] == 2
