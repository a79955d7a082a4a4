"""Losses against loops and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iir_sdk.training.run.losses import auxiliary_loss, dice_loss, mask_loss, share_loss


def test_mask_loss_equals_loops(rng):
    logits = rng.normal(size=(2, 2, 3, 4))
    target = rng.choice([0, 1, 255], (2, 3, 4))
    entropy, known, dice = 0.0, 0, []
    for b in range(2):
        both = total = 0.0
        for y in range(3):
            for x in range(4):
                t = target[b, y, x]
                if t == 255:
                    continue
                z = np.exp(logits[b, :, y, x])
                p = z / z.sum()
                entropy -= np.log(p[t])
                known += 1
                both += p[1] * (t == 1)
                total += p[1] + (t == 1)
        dice.append(1 - (2 * both + 1) / (total + 1))
    expected = entropy / known + 0.5 * np.mean(dice)
    found = mask_loss(torch.tensor(logits), torch.tensor(target), dice_weight=0.5)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_get_no_gradient(rng):
    logits = torch.tensor(rng.normal(size=(1, 2, 3, 3)), requires_grad=True)
    target = torch.tensor([[[1, 0, 255], [0, 255, 1], [1, 1, 0]]])
    mask_loss(logits, target).backward()
    ignored = (target == 255)[:, None].expand(1, 2, 3, 3)
    assert logits.grad is not None
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).all()


def test_gradient_equals_finite_differences(rng):
    logits = torch.tensor(rng.normal(size=(1, 2, 3, 3)), dtype=torch.float64, requires_grad=True)
    share = torch.tensor(rng.uniform(-0.2, 1, (1, 3, 3)))
    share_loss(logits, share).backward()
    for c, y, x in ((0, 0, 0), (1, 2, 1), (0, 1, 2)):
        moved = [logits.detach().clone(), logits.detach().clone()]
        moved[0][0, c, y, x] += 1e-2
        moved[1][0, c, y, x] -= 1e-2
        slope = (share_loss(moved[0], share) - share_loss(moved[1], share)) / 2e-2
        assert float(logits.grad[0, c, y, x]) == pytest.approx(float(slope), abs=1e-4)


def test_dice_leaves_out_pictures_without_the_object():
    target = torch.zeros(2, 3, 3, dtype=torch.long)
    target[0, 0] = 1
    probability = torch.rand(2, 3, 3)
    assert dice_loss(probability, target) == dice_loss(probability[:1], target[:1])
    assert dice_loss(probability[1:], target[1:]) == 0


def test_auxiliary_loss_is_half_the_start_and_a_quarter_of_the_blocks(rng):
    share = torch.rand(1, 2, 2)
    start, one, two = (torch.tensor(rng.normal(size=(1, 2, 2, 2))) for _ in range(3))
    expected = 0.5 * share_loss(start, share) + 0.25 * (share_loss(one, share) + share_loss(two, share)) / 2
    torch.testing.assert_close(auxiliary_loss((start, one, two), share), expected)
    torch.testing.assert_close(auxiliary_loss((start,), share), 0.5 * share_loss(start, share))
