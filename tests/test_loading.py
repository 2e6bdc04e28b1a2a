"""Photos reach the training step and the encoder as tensors do, whatever decodes them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import fitted_batches, fitted_images, train_views, views_of
from ssl_zoo.data.photos import Photos
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.method import Augment, ViewSpec

SPEC = ViewSpec(
    global_views=(Augment(32, scale=(0.4, 1.0)), Augment(32, scale=(0.4, 1.0), solarize_p=0.5)),
    local=Augment(16, scale=(0.1, 0.4)),
    local_count=2,
)
CPU = torch.device("cpu")
SIDES = [(70, 90), (100, 70), (80, 80), (71, 200), (300, 66), (90, 95), (128, 128)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    files = [folder / f"{i}.png" for i in range(len(SIDES))]
    for file, (height, width) in zip(files, SIDES, strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    photos = Photos(files, torch.arange(len(files)), torch.tensor(SIDES), grey=False)
    return Split(photos, None, (), "photos")


def views_from(split, start=0, workers=0):
    sampler, collate = Sampler(len(split), 3, seed=5), MultiCropCollate(SPEC, seed=5)
    return list(train_views(split, sampler, collate, range(start, 5), device=CPU, workers=workers))


def assert_same(first, second):
    assert all(map(torch.equal, first, second))


def test_views_of_photos_do_not_depend_on_workers_or_resume(split):
    alone = views_from(split)
    assert len(alone) == 5
    assert alone[0].global_crops.shape == (2, 3, 3, 32, 32)
    assert alone[0].local_crops.shape == (2, 3, 3, 16, 16)
    for first, second in zip(alone, views_from(split, workers=2), strict=True):
        assert_same(first, second)
    for first, second in zip(alone[3:], views_from(split, start=3), strict=True):
        assert_same(first, second)


def test_views_of_a_step_are_those_of_its_images_and_epoch(split):
    positions, epoch = Sampler(len(split), 3, seed=5).batch(2)
    assert epoch.unique().tolist() == [0, 1]
    assert_same(views_of(split, positions, epoch, MultiCropCollate(SPEC, seed=5), CPU), views_from(split)[2])


def test_tensors_take_the_same_way(split):
    images = torch.stack([split.images.decode(i)[:, :64, :64] for i in range(len(split))])
    tensor = Split(images, None, (), "tensor")
    sampler, collate = Sampler(len(tensor), 3, seed=5), MultiCropCollate(SPEC, seed=5)
    positions, epoch = sampler.batch(4)
    assert_same(views_from(tensor)[4], collate.batch(images[positions], positions, epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_fitted_photos_are_resized_and_centred_in_order(split, workers):
    batches = list(fitted_batches(split.images, 32, batch_size=4, workers=workers))
    assert [batch.shape for batch in batches] == [(4, 3, 32, 32), (3, 3, 32, 32)]
    assert torch.equal(torch.cat(batches), fitted_images(split.images, torch.arange(7), 32))
    tall = split.images.decode(6).float().mean()  # a square: nothing is cut away
    assert batches[1][2].float().mean() == pytest.approx(tall.item(), abs=1)


def test_photos_without_a_size_are_refused(split):
    with pytest.raises(ValueError, match="give the image_size"):
        next(fitted_batches(split.images, None, workers=0))


def test_enough_pixels_keep_the_smallest_crop_sharp():
    pixels = MultiCropCollate(SPEC).enough_pixels
    for view in (*SPEC.global_views, SPEC.local):
        shortest_side = pixels * (view.scale[0] * view.ratio[0]) ** 0.5
        assert shortest_side >= view.size
    assert (pixels - 1) * (0.4 * 0.75) ** 0.5 < 32  # and no more than that


def test_split_of_photos_pickles(split):
    again = pickle.loads(pickle.dumps(split))
    assert torch.equal(again.images.decode(3), split.images.decode(3))
