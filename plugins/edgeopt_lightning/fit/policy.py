"""RandAugment and TrivialAugment, as torchvision has them, with a seed for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeopt.plugins import Augmentation, Problem, TrainingError


def changed_by_policy(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Images, uint8 (n, channels, height, width), each changed by the policy that was asked for; the input is left
    alone. All randomness comes from `generator`.

    Raises `TrainingError` when torchvision is not installed.

    Sources: E. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS
    2020; S. Müller and F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021.
    """
    try:
        from edgeopt_torchvision.compat import import_torchvision  # heavy, and only where a policy is asked for

        import_torchvision()
        from torchvision.transforms import v2
    except ImportError as error:
        raise TrainingError(
            Problem("augmentation.policy needs torchvision, which is not installed", "pip install 'edgeopt[vision]'")
        ) from error
    if augmentation.policy == "trivial-augment":
        policy = v2.TrivialAugmentWide()
    else:
        policy = v2.RandAugment(augmentation.policy_operations, augmentation.policy_magnitude)
    seeds = torch.randint(2**62, (len(pixels),), generator=generator, device=generator.device).tolist()
    changed = []
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's one generator
        for image, seed in zip(pixels, seeds, strict=True):
            torch.manual_seed(seed)
            changed.append(policy(image))
    return torch.stack(changed)
