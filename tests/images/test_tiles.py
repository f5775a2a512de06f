"""Tiles: every pixel is seen, sizes are right, and what is done with an image is what the policy says."""

import numpy as np
import pytest

from histofeat.images import aggregate, choose_policy, fit_to, make_grid, pad_to


def image_of(height, width):
    """An image in which every pixel is another."""
    numbers = np.arange(height * width)
    return (
        np.stack([numbers // 65536, numbers // 256 % 256, numbers % 256], axis=-1)
        .reshape(height, width, 3)
        .astype("u1")
    )


def ids(tiles):
    pixels = np.concatenate([tile.reshape(-1, 3) for tile in tiles]).astype(np.int64)
    return pixels @ (65536, 256, 1)


@pytest.mark.parametrize("edges", ["overlap", "reflect"])
@pytest.mark.parametrize("size", [(50, 50), (460, 700), (1, 1), (7, 120), (51, 49), (100, 150)])
def test_tiles_have_the_size_and_cover_every_pixel(size, edges):
    image = image_of(*size)
    grid = make_grid(size, (50, 40), edges=edges)
    tiles = list(grid.cut(image))
    assert len(tiles) == len(grid)
    assert {tile.shape for tile in tiles} == {(50, 40, 3)}
    assert set(ids(tiles)) == set(range(size[0] * size[1]))
    least = -(-size[0] // 50) * -(-size[1] // 40)
    assert len(tiles) == least


def test_a_multiple_is_cut_without_overlap_and_as_it_is():
    image = image_of(100, 120)
    tiles = list(make_grid((100, 120), (50, 40)).cut(image))
    assert (np.sort(ids(tiles)) == np.arange(100 * 120)).all()
    assert (tiles[4] == image[50:, 40:80]).all()
    assert np.shares_memory(tiles[0], image)


def test_overlap_ends_with_the_image_and_reflection_goes_beyond():
    image = image_of(50, 70)
    overlap, reflect = ([*make_grid((50, 70), (50, 50), edges=edges).cut(image)][1] for edges in ("overlap", "reflect"))
    assert (overlap == image[:, 20:]).all()
    assert (reflect[:, :20] == image[:, 50:]).all()
    assert (reflect[:, 20:40] == image[:, 50:][:, ::-1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((50, 50), (50, 0)), r"size: expected height and width in px, got \(50, 0\)"),
        (((50, 50, 3), (50, 50)), r"image_size: expected height and width in px, got \(50, 50, 3\)"),
        (((50, 50), (50.0, 50)), "size: expected height and width in px"),
        (((50, 50), (50, 50), "mirror"), "edges: expected one of overlap, reflect, got 'mirror'"),
    ],
)
def test_grids_refuse(arguments, message):
    edges = {"edges": arguments[2]} if len(arguments) > 2 else {}
    with pytest.raises(ValueError, match=message):
        make_grid(*arguments[:2], **edges)


def test_padding_mirrors_more_than_once_where_it_has_to():
    one = np.array([[[1, 1, 1]], [[2, 2, 2]]], dtype=np.uint8)
    assert pad_to(one, (7, 2))[:, 0, 0].tolist() == [1, 2, 2, 1, 1, 2, 2]
    assert pad_to(one, (2, 1)) is one


@pytest.mark.parametrize("size", [(460, 700), (700, 460), (20, 20), (1, 300), (50, 50), (33, 50)])
@pytest.mark.parametrize("target", [(50, 50), (46, 70), (30, 90)])
def test_scaling_gives_the_size_and_keeps_a_flat_image_flat(size, target):
    flat = np.full((*size, 3), (10, 200, 30), dtype=np.uint8)
    scaled = fit_to(flat, target)
    assert scaled.shape == (*target, 3)
    assert (scaled == (10, 200, 30)).all()


def test_scaling_keeps_proportions_and_is_the_mean_of_an_area():
    stripes = np.zeros((100, 200, 3), dtype=np.uint8)
    stripes[:, 100:] = 255
    scaled = fit_to(stripes, (50, 100))
    assert (scaled[:, :50] == 0).all()
    assert (scaled[:, 50:] == 255).all()
    # Into a square: mirrored below, so that the border between the halves stays in the middle.
    assert (fit_to(stripes, (50, 50))[:, :25] == 0).all()
    blocks = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    mean = blocks.reshape(10, 2, 10, 2, 3).mean((1, 3))
    assert np.abs(fit_to(blocks, (10, 10)) - mean).max() <= 0.5


@pytest.mark.parametrize(
    ("policy", "size", "done"),
    [
        ("auto", (50, 50), "as is"),
        ("auto", (51, 50), "tile"),
        ("auto", (10, 500), "tile"),
        ("auto", (49, 50), "pad"),
        ("tile", (49, 50), "tile"),
        ("tile", (50, 50), "as is"),
        ("resize", (50, 50), "as is"),
        ("resize", (460, 700), "resize"),
        ("whole", (460, 700), "whole"),
    ],
)
def test_the_policy_is_what_it_says(policy, size, done):
    assert choose_policy(policy, size, (50, 50)) == done


def test_without_a_training_size_images_are_whole():
    assert choose_policy("auto", (460, 700), None) == choose_policy("whole", (460, 700), None) == "whole"
    with pytest.raises(ValueError, match="expected 'whole' for a model whose training patches were not of one size"):
        choose_policy("tile", (460, 700), None)
    with pytest.raises(ValueError, match=r"policy: expected one of .* got 'tiles'. Did you mean 'tile'"):
        choose_policy("tiles", (460, 700), (50, 50))


def test_aggregates_are_probabilities():
    rng = np.random.default_rng(0)
    for k in (2, 3, 8):
        tiles = rng.dirichlet(np.full(k, 0.2), 31)
        for how in ("mean", "median", "vote"):
            found = aggregate(tiles, how)
            assert found.shape == (k,)
            assert abs(found.sum() - 1) < 1e-12
            assert (found >= 0).all()
        assert np.allclose(aggregate(tiles), [np.mean(column) for column in tiles.T], rtol=1e-14)
        assert (aggregate(tiles, "vote") == [np.mean(tiles.argmax(1) == code) for code in range(k)]).all()
    assert (aggregate(np.eye(3), "median") == 1 / 3).all()
    assert aggregate(np.array([[0.2, 0.8]]), "median").tolist() == [0.2, 0.8]
    with pytest.raises(ValueError, match=r"aggregate: expected one of .* got 'max'"):
        aggregate(np.eye(2), "max")
