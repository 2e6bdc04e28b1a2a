"""Drawn crop boxes against torchvision's, and the independence of draws from what is drawn beside them."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from ssl_zoo.data.parameters import draw_boxes, draw_look
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment

VIEWS = [
    Augment(32, (0.2, 1.0), blur_p=0.5),
    Augment(32, (0.1, 0.4), ratio=(0.5, 2.0), jitter_p=0.3, gray_p=0.6, solarize_p=0.5),
    Augment(32, (0.5, 0.9), flip=0.1, jitter=(0.1, 0.9, 0.3, 0.5), blur_p=0.9, blur_sigma=(1.0, 3.0)),
]


def keys(count: int, seed: int = 0) -> Tensor:
    return hash64(seed, 0, torch.arange(count))


def test_views_drawn_together_are_those_drawn_alone():
    key, height = keys(20), torch.arange(20) + 30
    boxes, look = draw_boxes(VIEWS, key, 3, height, 40), draw_look(VIEWS, key, 3)
    for number, view in enumerate(VIEWS):
        part = slice(20 * number, 20 * number + 20)
        alone = [*draw_boxes([view], key, 3 + number, height, 40), *draw_look([view], key, 3 + number)]
        for together, one in zip([*boxes, *look], alone, strict=True):
            assert torch.equal(together[part], one)


def test_chances_and_bounds_are_the_views_own():
    look = draw_look(VIEWS, keys(4000), 0)
    for view, part in zip(VIEWS, torch.arange(12000).chunk(3), strict=True):
        shares = [look.factors[part, 2] != 1, look.flip[part], look.gray[part], look.sigma[part] > 0]
        wanted = [view.jitter_p, view.flip, view.gray_p, view.blur_p]
        assert [share.float().mean().item() for share in shares] == pytest.approx(wanted, abs=0.03)
        strength = (look.factors[part] - torch.tensor([1.0, 1, 1, 0])).abs().amax(0)
        assert strength.tolist() == pytest.approx(view.jitter, rel=0.01)
        sigma = look.sigma[part][look.sigma[part] > 0]
        if view.blur_p:
            assert [sigma.min().item(), sigma.max().item()] == pytest.approx(view.blur_sigma, abs=0.01)


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, (0.2, 1.0)), (60, 90, (0.05, 0.6))])
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    image, count = torch.empty(3, height, width), 4000
    params = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)]
    expected = torch.tensor(params, dtype=torch.float)
    boxes = torch.stack(draw_boxes([Augment(32, scale)], keys(count), 0, height, width), 1).float()
    tolerance = 5 * expected.std(0) / count**0.5
    assert ((boxes.mean(0) - expected.mean(0)).abs() < tolerance).all()
    assert ((boxes.std(0) - expected.std(0)).abs() < tolerance).all()


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 11), (1, 7), (7, 1)])
def test_central_box_where_none_fits(height, width):
    boxes = draw_boxes([Augment(32, (0.9, 1.0))], keys(5), 0, height, width)
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), [0.9, 1.0], [3 / 4, 4 / 3])
    assert torch.equal(torch.stack(boxes, 1), torch.tensor([expected] * 5))
