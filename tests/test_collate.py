"""MultiCropCollate on photos: opened, cut by workers and finished, or as the collate_fn of a DataLoader."""

import dataclasses
import io

import pytest
import torch
from made_views import LEVEL, PLAIN, SPEC, keys, levels, natural_images, photos, textures
from PIL import ExifTags, Image
from reference_views import reference_crop
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.parameters import draw_boxes
from ssl_zoo.method import ViewSpec


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.batch(torch.zeros(2, 3, 8, 8), torch.arange(2), 0), TypeError, "torch.float32"),
        (lambda c: c.batch(textures(2, 3, 8, 8)[:, :2], torch.arange(2), 0), TypeError, r"\[2, 2, 8, 8\]"),
        (lambda c: c.batch(textures(2, 3, 8, 8)[0], torch.arange(2), 0), TypeError, r"\[3, 8, 8\]"),
        (lambda c: c.batch(textures(2, 3, 8, 8), torch.arange(3), 0), ValueError, "2 images with 3"),
        (lambda c: c.cut(photos(), keys(3)), ValueError, "2 images with 3"),
        (lambda c: c.finish(c.cut(photos(), keys(2)), keys(3), keys(3)), ValueError, "2 images with 3 keys"),
        (lambda c: c([({"image": 0}, 1)]), TypeError, "dict"),
    ],
)
def test_errors_tell_what_to_give(call, error, message):
    with pytest.raises(error, match=message):
        call(MultiCropCollate(SPEC))
