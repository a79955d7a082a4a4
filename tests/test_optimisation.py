"""The schedule and the weight average, against their formulas."""

from __future__ import annotations

import pytest
import torch

from iir_sdk.training.run.optimisation import build_average, rate
from tests.test_training import TINY


@pytest.mark.parametrize("ema", [0.0, 0.5, 0.998])
def test_the_average_forgets_its_random_start(ema):
    module = torch.nn.Linear(1, 1, bias=False)
    average = build_average(module, TINY.changed({"optimiser.ema": ema}))
    expected = 0.0
    for n in range(300):
        value = 100.0 if n == 0 else float(n % 3)
        module.weight.data.fill_(value)
        average.update_parameters(module)
        decay = min(ema, n / (n + 3))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-4)
    assert expected < 2.1


def test_schedules_equal_their_formulas():
    config = TINY.changed({"optimiser.warmup": 4})
    cosine = [rate(s, 100, config) for s in range(100)]
    assert cosine[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=0.01)
    assert cosine[50] == pytest.approx(0.02 + 0.98 / 2)
    poly = config.changed({"optimiser.schedule": "poly", "optimiser.warmup": 0})
    for step in (0, 10, 99):
        assert rate(step, 100, poly) == pytest.approx((1 - step / 100) ** 0.9)
