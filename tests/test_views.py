"""Views against torchvision, image by image, and their independence of how images are batched."""

import dataclasses

import pytest
import torch
from made_views import FULL, LEVEL, MEAN, PLAIN, SPEC, STD, keys, levels, natural_images, textures
from reference_views import reference_crop, reference_look, reference_views

from ssl_zoo.data.augment import adapt, normalize, resize_crops, to_planes, to_rows
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.colour import LARGE, _blur_matrices, apply_look
from ssl_zoo.data.parameters import draw_boxes, draw_look
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, ViewSpec


def only(**changes: object) -> Augment:
    """The whole image at its own size, with nothing but the given operations."""
    return dataclasses.replace(PLAIN, scale=(1.0, 1.0), ratio=(1.0, 1.0), **changes)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "size"), [((32, 32), 32), ((32, 32), 16), ((29, 33), 15), ((64, 48), 32), ((9, 12), 20)]
)
def test_crops_equal_torchvision(mode, source, size):
    view = dataclasses.replace(PLAIN, size=size, scale=(0.05, 1.0), interpolation=mode)
    images, key = textures(24, 3, *source), keys(24)
    boxes = draw_boxes([view], key, 0, *source)
    crops = resize_crops(to_rows(images), boxes, [view]).transpose(0, 1)
    expected = torch.stack([reference_crop(image, boxes, row, view) for row, image in enumerate(images)])
    assert (crops - expected).abs().max() < 1e-3 * LEVEL
    flipped = resize_crops(to_rows(images), boxes, [view], torch.ones(24, dtype=torch.bool)).transpose(0, 1)
    assert torch.equal(flipped, crops.flip(-1))


OPERATIONS = {
    "brightness": only(jitter=(0.4, 0.0, 0.0, 0.0), jitter_p=1.0),
    "contrast": only(jitter=(0.0, 0.4, 0.0, 0.0), jitter_p=1.0),
    "saturation": only(jitter=(0.0, 0.0, 0.9, 0.0), jitter_p=1.0),
    "hue": only(jitter=(0.0, 0.0, 0.0, 0.5), jitter_p=1.0),
    "gray": only(gray_p=0.5),
    "flip": only(flip=0.5),
    "blur": only(blur_p=0.7),
    "solarize": only(solarize_p=0.5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_alone_equals_torchvision(name):
    images, view = natural_images(), OPERATIONS[name]
    collate = MultiCropCollate(ViewSpec((view,)))
    views = collate.batch(images, torch.arange(24), 0)
    expected = reference_views(images, views.key, view, 0)
    error = levels(views.global_crops[0] - expected).max()
    assert error < (1.01 if name == "solarize" else 0.01)  # rounding noise at torchvision's threshold
    assert (expected - normalize(images / 255)).abs().max() > 0.1  # the operation is there


@pytest.mark.parametrize("jitter", [(0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.5)])
def test_colour_in_random_order_equals_torchvision(jitter):
    images, view = natural_images(), only(jitter=jitter, jitter_p=0.8, gray_p=0.2)
    views = MultiCropCollate(ViewSpec((view,))).batch(images, torch.arange(24), 0)
    assert levels(views.global_crops[0] - reference_views(images, views.key, view, 0)).max() < 0.01


BILINEAR = dataclasses.replace(FULL, interpolation="bilinear", solarize_p=0.0)
MIXED = ViewSpec((FULL, BILINEAR, BILINEAR), dataclasses.replace(FULL, size=12), 2)


@pytest.mark.parametrize("spec", [SPEC, MIXED])
def test_whole_pipeline_equals_torchvision(spec):
    """Solarize inverts from 127.5 levels and torchvision from 128: in between, up to one level apart."""
    images = natural_images()
    views = MultiCropCollate(spec).batch(images, torch.arange(24), 0)
    augments = [*spec.global_views, *[spec.local] * spec.local_count]
    expected = [reference_views(images, views.key, view, slot) for slot, view in enumerate(augments)]
    crops = [*views.global_crops, *views.local_crops]
    error = torch.cat([levels(crop - other).flatten() for crop, other in zip(crops, expected, strict=True)])
    assert error.max() < 1.01
    assert (error < 0.01).float().mean() > 0.999


@pytest.mark.parametrize("size", [1, 2, 5, 15])
def test_blur_of_odd_and_tiny_crops_equals_torchvision(size):
    view = only(blur_p=1.0, blur_sigma=(0.1, 1.0))
    images, look = textures(8, 3, size, size), draw_look([view], keys(8), 0)
    blurred = apply_look(to_planes(images), look, [view]).transpose(0, 1)
    expected = torch.stack([reference_look(image / 255, look, row) for row, image in enumerate(images)])
    assert (blurred - expected).abs().max() < 0.01 * LEVEL


def test_blur_holds_no_denormal_numbers():
    weights = _blur_matrices(torch.linspace(0.1, 2, 40), LARGE)
    assert weights[weights > 0].min() > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("sigma", [0.1, 2.0, 5.0, 200.0])
def test_blur_of_large_crops_equals_that_of_small_ones(sigma):
    """However far it reaches: up to all of the crop."""
    planes, size = textures(1, 3, LARGE + 10, LARGE + 10)[0] / 255, LARGE + 10
    look = draw_look([only()], keys(1), 0)._replace(sigma=torch.tensor([sigma]))
    made = apply_look(planes[:, None].clone(), look, [only(blur_p=1.0)])
    matrix = _blur_matrices(torch.tensor([sigma]), size)[0]
    assert (made[:, 0] - matrix @ planes @ matrix.mT).abs().max() < 0.01 * LEVEL


@pytest.mark.parametrize("channels", [1, 3])
def test_large_crops_are_worked_on_one_by_one_and_equal_torchvision(channels):
    view = dataclasses.replace(FULL, blur_p=0.5, jitter_p=0.7)
    images = textures(12, channels, LARGE + 10, LARGE + 10)
    look = draw_look([view], keys(12), 0)
    made = apply_look(to_planes(images), look, [view])
    flat = look._replace(flip=torch.zeros(12, dtype=torch.bool))
    expected = torch.stack([reference_look(image / 255, flat, row) for row, image in enumerate(images)], 1)
    error = (made - expected).abs() / LEVEL
    assert error.max() < 1.01  # solarize inverts from 127.5 levels
    assert (error < 0.01).float().mean() > 0.999
    for start in range(0, 12, 5):
        some = look._make(field[start : start + 5] for field in look)
        assert torch.equal(
            apply_look(to_planes(images[start : start + 5]), some, [view]), made[:, start : start + 5]
        )


@pytest.mark.parametrize(
    ("channels", "height", "width", "size"),
    [(3, 32, 32, 32), (3, 29, 33, 15), (3, 43, 20, 9), (1, 28, 28, 28)],
)
def test_any_batch_split_gives_the_same_bits(channels, height, width, size):
    local = dataclasses.replace(FULL, size=7, interpolation="bilinear")
    collate = MultiCropCollate(ViewSpec((dataclasses.replace(FULL, size=size),), local, 2))
    images = textures(128, channels, height, width)
    index, epoch = torch.arange(128) * 7, torch.arange(128) // 70
    whole = collate.batch(images, index, epoch)
    for length in (1, 2, 28, 37, 64):
        for start in range(0, 128, length)[:8]:
            part = slice(start, start + length)
            views = collate.batch(images[part], index[part], epoch[part])
            assert torch.equal(views.global_crops, whole.global_crops[:, part])
            assert torch.equal(views.local_crops, whole.local_crops[:, part])
            assert torch.equal(views.key, whole.key[part])
            assert torch.equal(views.index, index[part])


def test_two_threads_give_the_bits_of_one():
    images, index = textures(128, 3, 32, 32), torch.arange(128)
    alone = MultiCropCollate(SPEC).batch(images, index, 0)
    torch.set_num_threads(2)
    try:
        together = MultiCropCollate(SPEC).batch(images, index, 0)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone.global_crops, together.global_crops)
    assert torch.equal(alone.local_crops, together.local_crops)


def test_draws_differ_between_views_epochs_seeds_and_images():
    images, index = natural_images()[:1].expand(4, -1, -1, -1), torch.arange(4)
    seeds_and_epochs = ((0, 0), (0, 1), (1, 0))
    batches = [MultiCropCollate(SPEC, seed).batch(images, index, epoch) for seed, epoch in seeds_and_epochs]
    global_crops = torch.cat([views.global_crops for views in batches]).flatten(0, 1)
    local_crops = torch.cat([views.local_crops for views in batches]).flatten(0, 1)
    assert len(global_crops.unique(dim=0)) == 3 * 2 * 4
    assert len(local_crops.unique(dim=0)) == 3 * 3 * 4


def test_shapes_and_types_under_autocast_too():
    views = MultiCropCollate(SPEC, seed=3).batch(textures(1, 1, 29, 33), torch.tensor([7]), 5)
    assert views.global_crops.shape == (2, 1, 3, 32, 32)
    assert views.local_crops.shape == (3, 1, 3, 16, 16)
    assert views.global_crops.dtype == torch.float32
    assert views.global_crops.is_contiguous()
    assert views.index.tolist() == [7]
    assert torch.equal(views.key, hash64(3, 5, torch.tensor([7])))
    with torch.autocast("cpu"):
        again = MultiCropCollate(SPEC, seed=3).batch(textures(1, 1, 29, 33), torch.tensor([7]), 5)
    assert torch.equal(views.global_crops, again.global_crops)
    large = MultiCropCollate(ViewSpec((Augment(LARGE + 9, (0.3, 1.0), blur_p=1.0),)))
    expected = large.batch(textures(2, 3, 150, 140), torch.arange(2), 0)
    with torch.autocast("cpu"):
        views = large.batch(textures(2, 3, 150, 140), torch.arange(2), 0)
    assert torch.equal(views.global_crops, expected.global_crops)


def test_grey_images_give_three_equal_channels():
    images, view = textures(16, 1, 28, 28), dataclasses.replace(FULL, size=28, solarize_p=0.0)
    views = MultiCropCollate(ViewSpec((view,))).batch(images, torch.arange(16), 0)
    assert levels(views.global_crops[0] - reference_views(images, views.key, view, 0)).max() < 0.01
    pixels = views.global_crops[0] * STD + MEAN
    assert (pixels - pixels[:, :1]).abs().max() < 1e-6


def test_adapt_scales_a_recipe():
    recipe = ViewSpec((Augment(224, (0.4, 1.0), blur_p=1.0),) * 2, Augment(96, (0.05, 0.4), blur_p=0.5), 8)
    sizes = {32: 12, 64: 28, 96: 40, 224: 96, 16: 8}
    for size, local in sizes.items():
        spec = adapt(recipe, size, grey=False, flip=True)
        assert [view.size for view in spec.global_views] == [size, size]
        assert (spec.local.size, spec.local_count) == (local, 8)
        assert spec.local.blur_p == (0.5 if size > 64 else 0.0)
    assert adapt(recipe, 224, grey=False, flip=True) == recipe
    grey = adapt(recipe, 28, grey=True, flip=False).global_views[0]
    assert (grey.jitter, grey.gray_p, grey.flip, grey.jitter_p) == ((0.4, 0.4, 0.0, 0.0), 0.0, 0.0, 0.8)
    assert adapt(ViewSpec((PLAIN,)), 16, grey=False, flip=True).local is None
