"""Views against torchvision, image by image, and their independence of how images are batched."""

import dataclasses
import io
from functools import cache

import pytest
import torch
from PIL import ExifTags, Image
from reference_views import reference_crop, reference_look, reference_views
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from ssl_zoo.data.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    adapt,
    normalize,
    resize_crops,
    to_planes,
    to_rows,
)
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.colour import LARGE, apply_look
from ssl_zoo.data.parameters import draw_boxes, draw_look
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, ViewSpec

LEVEL = 1 / 255  # one step of uint8
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
PLAIN = Augment(32, (0.3, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0)
FULL = Augment(32, (0.2, 1.0), blur_p=0.5, solarize_p=0.3)
SPEC = ViewSpec((FULL, dataclasses.replace(FULL, blur_p=0.0)), Augment(16, (0.05, 0.4)), 3)


@cache
def photos() -> list[Tensor]:
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]


@cache
def natural_images() -> Tensor:
    """24 patches of two photos: uint8 [24, 3, 32, 32]."""
    patches = torch.stack(photos())[..., :420, :560].unfold(2, 140, 140).unfold(3, 140, 140)
    return F.resize(patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2), [32, 32], antialias=True)


def textures(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth random fields crossed by a hard edge: uint8 [B, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    fields[..., height // 3 :, : width // 2] = 1 - fields[..., height // 3 :, : width // 2]
    return (255 * fields).round().byte()


def keys(count: int, seed: int = 0) -> Tensor:
    return hash64(seed, 0, torch.arange(count))


def levels(difference: Tensor) -> Tensor:
    """Absolute differences of normalised pixels in steps of uint8."""
    return (difference * STD / LEVEL).abs()


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


def test_cut_and_finish_equal_batch_up_to_rounding():
    view = dataclasses.replace(PLAIN, flip=0.5, gray_p=0.2, blur_p=0.5)
    collate, images, index = MultiCropCollate(ViewSpec((view, view))), natural_images(), torch.arange(24)
    key = collate.key(index, 0)
    crops = collate.cut(images, key)
    assert crops.global_crops.dtype == torch.uint8
    views, expected = collate.finish(crops, key, index), collate.batch(images, index, 0)
    assert levels(views.global_crops - expected.global_crops).max() < 0.51
    assert torch.equal(views.index, index)
    assert torch.equal(views.key, key)
    assert views.local_crops is None


def test_photos_of_one_tensor_are_cut_one_by_one():
    collate, images, index = MultiCropCollate(SPEC), torch.stack(photos()), torch.arange(2)
    views, key = collate.batch(images, index, 0), collate.key(index, 0)
    listed = collate.finish(collate.cut([F.to_pil_image(image) for image in images], key), key, index)
    assert torch.equal(views.global_crops, listed.global_crops)
    assert torch.equal(views.local_crops, listed.local_crops)


def test_opened_images_are_cut_upright_and_grey_ones_keep_one_channel():
    exif, grey = Image.Exif(), F.to_pil_image(photos()[0]).convert("L")
    exif[ExifTags.Base.Orientation] = 6
    grey.save(file := io.BytesIO(), "PNG", exif=exif)
    upright, collate, key = (
        F.pil_to_tensor(grey.transpose(Image.Transpose.ROTATE_270)),
        MultiCropCollate(SPEC),
        keys(1),
    )
    cut, expected = (collate.cut([image], key) for image in (Image.open(file), upright))
    assert cut.global_crops.shape[2] == 1
    assert torch.equal(cut.global_crops, expected.global_crops)


def test_photos_are_cut_as_torchvision_cuts_them():
    view = dataclasses.replace(PLAIN, size=96, interpolation="bilinear")
    local = dataclasses.replace(view, size=72)
    images, key = [photos()[0], photos()[1][:, :300, :200]], keys(2)
    cut = MultiCropCollate(ViewSpec((view,), local, 2)).cut(images, key)
    for slot, crops in enumerate([*cut.global_crops, *cut.local_crops]):
        shape = dataclasses.replace(view, size=crops.shape[-1])
        for crop, image, one in zip(crops, images, key, strict=True):
            boxes = draw_boxes([shape], one[None], slot, *image.shape[-2:])
            assert (crop / 255 - reference_crop(image, boxes, 0, shape)).abs().max() < 1.01 * LEVEL


def samples(count: int) -> list[tuple[Image.Image, int]]:
    """PIL photos of differing sizes, one of them grey, with labels."""
    photo = F.to_pil_image(photos()[0])
    images = [photo.crop((0, 0, 640 - 20 * i, 427 - 10 * i)) for i in range(count)]
    return [(image.convert("L") if i == 1 else image, i) for i, image in enumerate(images)]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and 3.13 on a DataLoader
@pytest.mark.parametrize("workers", [0, 2])
def test_collate_fn_of_a_data_loader(workers):
    collate = MultiCropCollate(SPEC)
    loader = DataLoader(samples(8), batch_size=2, num_workers=workers, collate_fn=collate)
    torch.manual_seed(0)
    first, second = list(loader), list(loader)
    torch.manual_seed(0)
    again = list(loader)
    for views, repeated in zip(first, again, strict=True):
        assert views.global_crops.shape == (2, 2, 3, 32, 32)
        assert views.local_crops.shape == (3, 2, 3, 16, 16)
        assert views.index.tolist() == [-1, -1]
        assert torch.equal(views.global_crops, repeated.global_crops)
    assert len(torch.cat([views.key for views in first + second]).unique()) == 16


def test_samples_may_be_bare_images_or_longer_tuples():
    image, collate = natural_images()[0], MultiCropCollate(SPEC)
    batches = []
    for sample in (image, (image, 3), [image, 3, "name"], (F.to_pil_image(image), 3)):
        torch.manual_seed(0)
        batches.append(collate([sample, sample]))
    assert all(torch.equal(views.global_crops, batches[0].global_crops) for views in batches)


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.batch(torch.zeros(2, 3, 8, 8), torch.arange(2), 0), TypeError, "torch.float32"),
        (lambda c: c.batch(textures(2, 3, 8, 8)[:, :2], torch.arange(2), 0), TypeError, r"\[2, 2, 8, 8\]"),
        (lambda c: c.batch(textures(2, 3, 8, 8)[0], torch.arange(2), 0), TypeError, r"\[3, 8, 8\]"),
        (lambda c: c.batch(textures(2, 3, 8, 8), torch.arange(3), 0), ValueError, "2 images with 3"),
        (lambda c: c.cut(photos(), keys(3)), ValueError, "2 images with 3"),
        (lambda c: c([({"image": 0}, 1)]), TypeError, "dict"),
    ],
)
def test_errors_tell_what_to_give(call, error, message):
    with pytest.raises(error, match=message):
        call(MultiCropCollate(SPEC))
