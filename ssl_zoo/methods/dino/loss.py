"""DINO's loss and its center state."""

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.nets import cross_view_pairs

Centering = Literal["mean", "sinkhorn", "none"]


class DINOLoss(nn.Module):
    """Cross-entropy between teacher and student across views, with the teacher centred and sharpened.

    Mean over pairs of different views and over images of -sum_k softmax((t - c) / T_t) log softmax(s / T_s)
    (Caron et al. 2021, eq. 3, averaged as in the official code). The buffer `center` [1, K] moves only in
    `update_center`.
    """

    center: Tensor

    def __init__(
        self,
        out_dim: int,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        centering: Centering = "mean",
    ) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.centering = centering
        self.register_buffer("center", torch.zeros(1, out_dim))

    def teacher_distribution(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Detached float32 targets [T, B, K] from teacher logits [T, B, K]."""
        logits = teacher_logits.detach().float()
        match self.centering:
            case "mean":
                return ((logits - self.center) / temperature).softmax(-1)
            case "sinkhorn":
                return sinkhorn(logits.flatten(0, 1) / temperature).view_as(logits)
            case "none":
                return (logits / temperature).softmax(-1)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, teacher_temperature: float = 0.04
    ) -> Tensor:
        """Student logits [S, B, K], teacher logits [T, B, K] of the first T views -> float32 scalar."""
        with torch.autocast(student_logits.device.type, enabled=False):
            targets = self.teacher_distribution(teacher_logits, teacher_temperature)
            return self.cross_entropy(student_logits, targets)

    def cross_entropy(self, student_logits: Tensor, targets: Tensor) -> Tensor:
        """Student logits [S, B, K], target distributions [T, B, K] -> scalar, the mean over cross-view pairs.

        Raises ValueError if there is no pair of different views.
        """
        pairs = cross_view_pairs(len(targets), len(student_logits))
        if not pairs:
            raise ValueError("DINO compares different views: give at least two student views")
        total = targets.new_zeros(())
        for j, logits in enumerate(student_logits):
            others = [targets[i] for i, student in pairs if student == j]
            if others:
                log_p = (logits.float() / self.student_temperature).log_softmax(-1)
                total = total - (torch.stack(others).sum(0) * log_p).sum(-1).mean()
        return total / len(pairs)

    @torch.no_grad()
    def update_center(self, teacher_logits: Tensor) -> None:
        """Move the center to the mean of raw teacher logits [T, B, K] (eq. 4); once a step, after its use."""
        mean = teacher_logits.float().flatten(0, 1).mean(0, keepdim=True)
        self.center.lerp_(mean, 1 - self.center_momentum)


def sinkhorn(scores: Tensor, iterations: int = 3) -> Tensor:
    """Assignments [N, K] whose rows sum to 1 and columns nearly to N / K, from scores / temperature [N, K].

    Sinkhorn-Knopp in the log domain (Cuturi 2013; DINOv2's alternative to centering).
    """
    log_q = scores
    for _ in range(iterations):
        log_q = log_q.log_softmax(0)
        log_q = log_q.log_softmax(1)
    return log_q.exp()
