"""What keeps a GPU busy, as far as it shows without one: views wait for no device and come ahead.

On the device `meta` every operation is accepted that needs no values on the host, and no other.
"""

import time
from contextlib import nullcontext

import pytest
import torch

from ssl_zoo.data.augment import Augment
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.loading import ahead, apart, grouped
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.method import ViewSpec

META = torch.device("meta")
EVERYTHING = Augment(32, (0.3, 1.0), blur_p=0.5, solarize_p=0.5)
SPEC = ViewSpec((EVERYTHING, EVERYTHING), Augment(16, (0.1, 0.4)), 2)
INDEX = torch.arange(16)


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no meta


@pytest.mark.parametrize("side", [32, 80], ids=["table", "one by one"])
def test_making_views_waits_for_no_device(side):
    collate, images = MultiCropCollate(SPEC), torch.zeros(16, 3, side, side, dtype=torch.uint8)
    if side == 32:
        views = collate.batch(images.to(META), INDEX, epoch=0)
    else:
        key = collate.key(INDEX, 0)
        views = collate.finish(collate.cut(images, key).to(META), key, INDEX)
    assert {part.device for part in views if part is not None} == {META}
    real = collate.batch(images, INDEX, epoch=0)
    assert [part.shape for part in views] == [part.shape for part in real]


def test_views_made_ahead_are_the_same_in_order():
    made = []

    def views():
        for number in range(3):
            made.append(number)
            yield MultiCropCollate(SPEC).batch(
                torch.zeros(4, 3, 32, 32, dtype=torch.uint8), INDEX[:4], number
            )

    for number, ready in enumerate(ahead(views(), torch.device("cpu"))):
        deadline = time.monotonic() + 60
        while len(made) < min(number + 2, 3) and time.monotonic() < deadline:
            time.sleep(0.001)  # a training step, beside which the next views are made
        assert made == list(range(min(number + 2, 3)))
        expected = MultiCropCollate(SPEC).batch(
            torch.zeros(4, 3, 32, 32, dtype=torch.uint8), INDEX[:4], number
        )
        assert torch.equal(ready.global_crops, expected.global_crops)
    assert number == 2


def test_what_fails_ahead_is_told():
    def views():
        yield MultiCropCollate(SPEC).batch(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), INDEX[:4], 0)
        raise OSError("a photo is gone")

    seen = ahead(views(), torch.device("cpu"))
    next(seen)
    with pytest.raises(OSError, match="a photo is gone"):
        next(seen)


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("local", [None, Augment(16, (0.1, 0.4))])
def test_views_of_steps_made_together_are_those_of_each(start, local):
    spec = ViewSpec(SPEC.global_views, local, 2 if local else 0)
    images = torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8)
    sampler, collate, steps = Sampler(10, 4, seed=3), MultiCropCollate(spec), range(start, 8)
    groups = list(grouped(steps, 3))
    assert [list(group) for group in groups] == [[0, 1, 2], [3, 4, 5], [6, 7]][start // 3 :]

    def views(positions, epoch):
        return collate.batch(images[positions], positions, epoch)

    together = ((group, views(*sampler.batches(group))) for group in groups)
    made = list(apart(together, steps))
    assert len(made) == len(steps)
    for step, found in zip(steps, made, strict=True):
        for part, same in zip(found, views(*sampler.batch(step)), strict=True):
            assert (part is None and same is None) or torch.equal(part, same)
