"""The network of facebookresearch/dino (vision_transformer.py, utils.py) and its checkpoints, written out.

A ViT under the official names, with the official interpolation of position embeddings; forward passes are
written over a state dict, so that nothing of timm or of ours is in them.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

DIM, HEADS, DEPTH, PATCH, SIDE, K, HIDDEN, BOTTLENECK = 16, 2, 3, 4, 16, 12, 10, 6


def vit_weights(seed):
    """A ViT of `vision_transformer.py`: its names, its shapes, random values."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=draw) * 0.3

    weights = {
        "cls_token": random(1, 1, DIM),
        "pos_embed": random(1, 1 + (SIDE // PATCH) ** 2, DIM),
        "patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": random(DIM),
    }
    for i in range(DEPTH):
        for norm in ("norm1", "norm2"):
            weights |= {f"blocks.{i}.{norm}.weight": 1 + random(DIM), f"blocks.{i}.{norm}.bias": random(DIM)}
        layers = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (4 * DIM, DIM)}
        for name, (out, fan_in) in (layers | {"mlp.fc2": (DIM, 4 * DIM)}).items():
            weights |= {
                f"blocks.{i}.{name}.weight": random(out, fan_in),
                f"blocks.{i}.{name}.bias": random(out),
            }
    return weights | {"norm.weight": 1 + random(DIM), "norm.bias": random(DIM)}


def head_weights(seed, layers=3, use_bn=False):
    """A DINOHead of `vision_transformer.py`; of one layer its MLP is no Sequential."""
    draw = torch.Generator().manual_seed(seed + 100)
    widths = [DIM, *[HIDDEN] * (layers - 1), BOTTLENECK]
    weights = {}
    for i in range(layers):
        name = "mlp" if layers == 1 else f"mlp.{(3 if use_bn else 2) * i}"
        weights[f"{name}.weight"] = torch.randn(widths[i + 1], widths[i], generator=draw) * 0.3
        weights[f"{name}.bias"] = torch.randn(widths[i + 1], generator=draw) * 0.3
        if use_bn and i < layers - 1:
            ones, zeros = torch.ones(HIDDEN), torch.zeros(HIDDEN)
            norm = {"weight": ones, "bias": zeros, "running_mean": zeros + 0.1, "running_var": ones * 2}
            norm["num_batches_tracked"] = torch.tensor(3)
            weights |= {f"mlp.{3 * i + 1}.{key}": value.clone() for key, value in norm.items()}
    weights["last_layer.weight_g"] = torch.ones(K, 1)
    weights["last_layer.weight_v"] = torch.randn(K, BOTTLENECK, generator=draw)
    return weights


def checkpoint(layers=3, use_bn=False):
    """What main_dino.py saves: the student wrapped for several devices, the teacher only with batch norm."""
    nets = [{"backbone": vit_weights(seed), "head": head_weights(seed, layers, use_bn)} for seed in (1, 2)]
    student, teacher = (
        {f"{wrapped}{part}.{key}": value for part, state in net.items() for key, value in state.items()}
        for net, wrapped in zip(nets, ("module.", "module." if use_bn else ""), strict=True)
    )
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter])
    for group in optimizer.param_groups:  # main_dino.py writes values of a numpy array into it
        group["lr"], group["weight_decay"] = np.linspace(0, 1, 3)[1], np.linspace(0, 1, 3)[2]
    parameter.sum().backward()
    optimizer.step()
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "args": argparse.Namespace(
            arch="vit_small", norm_last_layer=False, output_dir=Path("/checkpoint/1"), momentum=0.996
        ),
        "dino_loss": {"center": torch.randn(1, K)},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
    }


def forward(weights, images):
    """`VisionTransformer.forward` of images [B, 3, H, W]: the class token [B, D]; and its last attention."""
    w = weights
    x = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
    height, width = x.shape[-2:]
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + position_embeddings(w["pos_embed"], width, height)
    for i in range(DEPTH):
        b = f"blocks.{i}."
        y = F.layer_norm(x, (DIM,), w[f"{b}norm1.weight"], w[f"{b}norm1.bias"], 1e-6)
        qkv = F.linear(y, w[f"{b}attn.qkv.weight"], w[f"{b}attn.qkv.bias"])
        q, k, v = qkv.reshape(*x.shape[:2], 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * (DIM // HEADS) ** -0.5).softmax(-1)
        y = (attention @ v).transpose(1, 2).reshape(x.shape)
        x = x + F.linear(y, w[f"{b}attn.proj.weight"], w[f"{b}attn.proj.bias"])
        y = F.layer_norm(x, (DIM,), w[f"{b}norm2.weight"], w[f"{b}norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, w[f"{b}mlp.fc1.weight"], w[f"{b}mlp.fc1.bias"]))
        x = x + F.linear(y, w[f"{b}mlp.fc2.weight"], w[f"{b}mlp.fc2.bias"])
    return F.layer_norm(x, (DIM,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0], attention


def position_embeddings(pos_embed, columns, rows):
    """`interpolate_pos_encoding`: bicubic by a scale factor that is 0.1 patches too large."""
    side = math.isqrt(pos_embed.shape[1] - 1)
    if (columns, rows) == (side, side):
        return pos_embed
    grid = pos_embed[:, 1:].reshape(1, side, side, DIM).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([pos_embed[:, :1], grid.permute(0, 2, 3, 1).view(1, -1, DIM)], dim=1)


def head_forward(weights, x):
    """`DINOHead.forward` without batch norm."""
    layers = sorted({key.rpartition(".")[0] for key in weights if key.startswith("mlp")})
    for i, layer in enumerate(layers):
        x = F.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        x = F.gelu(x) if i < len(layers) - 1 else x
    v = weights["last_layer.weight_v"]
    return F.linear(F.normalize(x, dim=-1), weights["last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True))
