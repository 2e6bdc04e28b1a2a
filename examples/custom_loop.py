"""The pieces in your own loop: views from your loader, one step, features.

python examples/custom_loop.py
"""

import torch

from ssl_zoo import MultiCropCollate, create_backbone, create_dataset, create_method
from ssl_zoo.method import Step

digits = create_dataset("digits").split("train")
samples = list(zip(digits.images, digits.labels.tolist(), strict=True))  # any (image, label) data set

backbone = create_backbone("resnet8", image_size=32, width=16)
method = create_method("dino", backbone, out_dim=256)
loader = torch.utils.data.DataLoader(
    samples, batch_size=64, shuffle=True, drop_last=True, collate_fn=MultiCropCollate(method.config.views)
)
optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)

for index, views in enumerate(loader):  # Views: labels never get here
    step = Step(index, total=len(loader))
    output = method(views, step)
    output.loss.backward()
    method.on_grads_ready(step)
    optimizer.step()
    optimizer.zero_grad()
    method.on_step_end([output], step)  # teacher and center move here, and only here
print(f"{len(loader)} steps, loss {output.loss:.3f}")
