"""A linear map of the pixels: what a backbone has to be better than."""

from torch import Tensor, nn

from ssl_zoo.nets import Backbone

MOST_SIDE = 32  # px


class Linear(Backbone):
    """Images shrunk to 32 px at most, and a linear layer on their pixels."""

    net: nn.Linear

    def __init__(self, image_size: int, *, out_dim: int = 128) -> None:
        super().__init__()
        side = min(image_size, MOST_SIDE)
        self.pixels = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten())
        self.net = nn.Linear(3 * side**2, out_dim)
        self.out_dim = out_dim

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(self.pixels(x))
        return features
