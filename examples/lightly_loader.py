"""Views made by lightly's transforms, PIL images one by one, feeding a method of ssl_zoo.

python examples/lightly_loader.py
"""

import torch
from lightly.transforms import DINOTransform
from torchvision.transforms.v2.functional import to_pil_image

from ssl_zoo import Views, create_backbone, create_dataset, create_method
from ssl_zoo.method import Step

SMALL = {"global_crop_size": 32, "local_crop_size": 16, "n_local_views": 4}


class Digits(torch.utils.data.Dataset[tuple[list[torch.Tensor], int]]):
    """An image as its crops, two global and four local ones, with the image's index."""

    def __init__(self) -> None:
        images = create_dataset("digits").split("train").images[:256]
        self.images = [to_pil_image(image).convert("RGB") for image in images]
        self.transform = DINOTransform(**SMALL, hf_prob=0.0)  # a mirrored digit is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        return self.transform(self.images[index]), index


backbone = create_backbone("resnet8", image_size=32, width=16)
method = create_method("dino", backbone, out_dim=256)
loader = torch.utils.data.DataLoader(Digits(), batch_size=32, shuffle=True, drop_last=True)
optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)

for index, (crops, image_index) in enumerate(loader):  # torch's own collate: a tensor [B, C, H, W] per crop
    views = Views.from_list(crops, image_index)  # sorts global from local crops by their size
    step = Step(index, total=len(loader))
    output = method(views, step)
    output.loss.backward()
    method.on_grads_ready(step)
    optimizer.step()
    optimizer.zero_grad()
    method.on_step_end([output], step)
print(f"{len(loader)} steps, loss {output.loss:.3f}")
