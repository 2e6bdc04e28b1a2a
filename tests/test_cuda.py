"""The same on a GPU as on the CPU; skipped where there is none."""

import warnings
from contextlib import contextmanager

import pytest
import torch

from ssl_zoo import create_backbone, create_method, fit, list_methods
from ssl_zoo.data import loading
from ssl_zoo.data.augment import Augment
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.method import ViewSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

VIEW = Augment(32, (0.3, 1.0), blur_p=0.5, solarize_p=0.5)
SPEC = ViewSpec((VIEW, VIEW), Augment(16, (0.1, 0.4)), 2)
PIXELS = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = Split(PIXELS, None, (), "made")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def trained(name, device, views=None, **options):
    torch.manual_seed(0)
    given = {"views": views} if views else {}
    method = create_method(name, create_backbone("resnet8", image_size=32, width=16), **given)
    return fit(method, IMAGES, budget={"steps": 4}, batch_size=32, device=device, **options)


@contextmanager
def nothing_waits():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this is a prototype
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_views_are_those_of_the_cpu_and_nothing_waits():
    collate, sampler = MultiCropCollate(SPEC), Sampler(64, 16, seed=0)
    expected = list(train_views(IMAGES, sampler, collate, range(6), device=CPU))
    list(train_views(IMAGES, sampler, collate, range(1), device=CUDA))  # what is sent once
    made = train_views(IMAGES, sampler, collate, range(6), device=CUDA)
    for there, here in zip(made, expected, strict=True):
        for part, same in zip(there, here, strict=True):
            assert part.device.type == "cuda"
            torch.testing.assert_close(part.cpu(), same, atol=1e-3, rtol=0)  # 1e-4 of [0, 1], standardised
    resident = PIXELS.to(CUDA)
    torch.cuda.synchronize()
    with nothing_waits():
        collate.batch(resident, torch.arange(64), 0)


def test_views_of_a_resumed_training_are_bit_equal(monkeypatch):
    collate, sampler = MultiCropCollate(SPEC), Sampler(64, 16, seed=0)
    monkeypatch.setattr(loading, "_PIXELS_AT_ONCE", 4 * 16 * collate.pixels_per_image)
    whole = list(train_views(IMAGES, sampler, collate, range(10), device=CUDA))
    resumed = train_views(IMAGES, sampler, collate, range(5, 10), device=CUDA)
    for there, again in zip(whole[5:], resumed, strict=True):
        assert all(map(torch.equal, there, again))


@pytest.mark.parametrize("name", list_methods())
def test_a_training_is_that_of_the_cpu(name):
    here, there = trained(name, "cpu", precision="fp32"), trained(name, "cuda", precision="fp32")
    assert there.metrics["loss"] == pytest.approx(here.metrics["loss"], rel=1e-2)


@pytest.mark.parametrize("name", list_methods())
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("default")  # torch's compiler has several of its own
def test_bf16_and_compiled_trainings_stay_close(name, compiled):
    plain = trained(name, "cuda", precision="fp32")
    other = trained(name, "cuda", precision="bf16", compile_backbones=compiled)
    assert other.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=5e-2)


@pytest.mark.filterwarnings("default")
def test_parts_of_batches_and_local_crops_pass_compiled_backbones():
    plain = trained("dino", "cuda", precision="fp32", accumulate=2, views=SPEC)
    other = trained("dino", "cuda", precision="fp32", accumulate=2, views=SPEC, compile_backbones=True)
    assert other.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-2)
