"""A background that every support shares: words of a dictionary, and the prior that counts them."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from iir_sdk.errors import ConfigError, MissingDependencyError
from iir_sdk.model.backbone import Taps
from iir_sdk.model.companions import Dictionary, dense_prior, dictionary_prior
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.training.dictionary_fit import PICTURES, fit_dictionary
from tests.test_iir import LIGHT, episode
from tests.test_loop import WORDS, build
from tests.test_training import random_backbone  # noqa: F401


def drawn(seed: int = 0, tasks: int = 2, tokens: int = 5, words: int = 3, side: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "affinity": normal(tasks, tokens, side, side),
        "of_words": normal(tasks, words, side, side),
        "near": normal(tasks, words, tokens),
        "side": torch.rand(tasks, tokens, generator=generator),
        # A token that stands for nothing.
        "bias": torch.where(torch.arange(tasks)[:, None, None] + torch.arange(tokens) == 0, -torch.inf, 0.0)
        + normal(tasks, 1, tokens),
    }


def by_loops(inputs: dict[str, torch.Tensor], near_scale: float, weight: float, at: tuple[int, int, int]) -> float:
    """Foreground's share at one position, its weights summed one by one."""
    task, row, column = at
    affinity, of_words, near, side, bias = (inputs[k].double().numpy() for k in inputs)
    masses = np.exp(bias[task, 0])
    foreground = background = 0.0
    for token in range(affinity.shape[1]):
        pull = masses[token] * math.exp(affinity[task, token, row, column])
        foreground += pull * side[task, token]
        background += pull * (1 - side[task, token])
    for word in range(of_words.shape[1]):
        pulls = [masses[t] * math.exp(near[task, word, t]) for t in range(affinity.shape[1])]
        resembles = sum(p * s for p, s in zip(pulls, side[task], strict=True)) / sum(pulls)
        own = math.exp(weight - near_scale * resembles) * masses.sum() / of_words.shape[1]
        background += own * math.exp(of_words[task, word, row, column])
    return foreground / (foreground + background)


@pytest.mark.parametrize(("near_scale", "weight"), [(10.0, 0.0), (2.0, 1.5)])
def test_the_prior_is_foregrounds_share_among_tokens_and_words(near_scale, weight):
    inputs, dictionary = drawn(), Dictionary(3, 4, 4)
    with torch.no_grad():
        dictionary.near_scale_log.fill_(math.log(near_scale))
        dictionary.weight_log.fill_(weight)
        found = dictionary_prior(**inputs, dictionary=dictionary)
    assert torch.equal(inputs["bias"].isinf().any(2), torch.tensor([[True], [False]]))
    torch.testing.assert_close(found.among_tokens, dense_prior(inputs["affinity"], inputs["side"], inputs["bias"]))
    for task, row, column in np.ndindex(2, 2, 2):
        expected = by_loops(inputs, near_scale, weight, (task, row, column))
        assert found.among_words[task, 0, row, column] == pytest.approx(expected, abs=1e-5)
        assert found.odds[task, 0, row, column] == pytest.approx(math.log(expected / (1 - expected)) / 8, abs=1e-4)


def test_words_without_weight_leave_the_supports_own_prior():
    inputs, dictionary = drawn(1), Dictionary(3, 4, 4)
    with torch.no_grad():
        dictionary.weight_log.fill_(-80)
        found = dictionary_prior(**inputs, dictionary=dictionary)
    torch.testing.assert_close(found.among_words, found.among_tokens)


def test_words_that_win_everywhere_keep_the_ranking_and_finite_odds():
    inputs, dictionary = drawn(3), Dictionary(3, 4, 4)
    for tensor in inputs.values():
        tensor.requires_grad_()
    with torch.no_grad():
        dictionary.weight_log.fill_(30)
    found = dictionary_prior(**inputs, dictionary=dictionary)
    assert (found.among_words < 1e-6).all()
    assert found.among_words.flatten(1).unique(dim=1).shape[1] == 4
    assert torch.allclose(found.odds, torch.tensor(1e-4).logit() / 8)
    (found.among_words.log().sum() + found.odds.sum()).backward()
    assert all(torch.isfinite(t.grad).all() for t in (inputs["affinity"], inputs["near"], dictionary.weight_log))
    assert float(dictionary.weight_log.grad) != 0


@pytest.mark.parametrize("shots", [1, 2])
def test_one_query_by_several_supports_is_as_by_each(shots):
    torch.manual_seed(0)
    model = IIR(replace(LIGHT, self_support=True, dictionary=8)).eval()
    images, masks, queries = episode(tasks=3, shots=shots)
    with torch.inference_mode():
        together = model(queries[:1], model.encode_support(images, masks)).logits
        each = [model.encode_support(images[i : i + 1], masks[i : i + 1]) for i in range(3)]
        singly = [model(queries[:1], state).logits for state in each]
    torch.testing.assert_close(together, torch.cat(singly), atol=1e-4, rtol=1e-4)


def test_a_word_like_the_object_counts_less_than_one_like_its_background():
    inputs = drawn(2, tokens=2, words=1)
    inputs |= {"side": torch.tensor([[1.0, 0.0]]).expand(2, -1), "bias": torch.zeros(2, 1, 2)}
    dictionary, found = Dictionary(1, 4, 4), []
    for nearest in ([5.0, -5.0], [-5.0, 5.0]):
        inputs["near"] = torch.tensor([[nearest]]).expand(2, -1, -1)
        with torch.no_grad():
            found.append(dictionary_prior(**inputs, dictionary=dictionary).among_words)
    assert (found[0] > found[1]).all()


def clustered(centres: torch.Tensor, pictures: int, seed: int) -> Taps:
    """Pictures of 4 x 4 positions, each near one of the centres ``(M, C_mid + C_high)``."""
    generator = torch.Generator().manual_seed(seed)
    # High has a quarter of the positions: all of a picture's show one centre.
    which = torch.randint(len(centres), (pictures,), generator=generator)
    rows = centres[which][:, :, None, None] + 0.01 * torch.randn(pictures, centres.shape[1], 4, 4, generator=generator)
    return Taps(torch.zeros(pictures, 1, 8, 8), rows[:, :6], F.avg_pool2d(rows[:, 6:], 2))


def test_words_are_the_clusters_of_what_pictures_show():
    centres = torch.randn(3, 6 + 5, generator=torch.Generator().manual_seed(0))
    dictionary = Dictionary(12, 6, 5)
    fit_dictionary(dictionary, clustered(centres, 40, seed=1))
    for words, part in ((dictionary.mid, centres[:, :6]), (dictionary.high, centres[:, 6:])):
        cosines = F.normalize(part, dim=1) @ words.T
        assert (cosines.amax(1) > 0.99).all()
        assert (cosines.amax(0) > 0.99).all()


def test_the_same_seed_finds_the_same_words():
    taps = clustered(torch.randn(5, 11, generator=torch.Generator().manual_seed(0)), 30, seed=2)
    first, second = Dictionary(4, 6, 5), Dictionary(4, 6, 5)
    fit_dictionary(first, taps, seed=3)
    fit_dictionary(second, taps, seed=3)
    torch.testing.assert_close(first.mid, second.mid)
    torch.testing.assert_close(first.high, second.high)


def test_more_words_than_positions_are_refused():
    with pytest.raises(ConfigError, match="dictionary=100"):
        fit_dictionary(Dictionary(100, 6, 5), clustered(torch.randn(2, 11), 2, seed=0))


def test_scipy_is_asked_for_before_any_picture_is_looked_at(picture_folder, tmp_path, random_backbone, monkeypatch):  # noqa: F811
    trainer = build(WORDS, picture_folder, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "scipy.cluster.vq", None)
    monkeypatch.setattr(trainer.source, "first_taps", lambda count: pytest.fail("looked"))
    with pytest.raises(MissingDependencyError, match=r"iir-sdk\[train\]"):
        trainer.run()


def test_a_dictionary_needs_the_joint_prior():
    with pytest.raises(ConfigError, match="preset='light'"):
        ModelConfig(preset="paper", dictionary=8)


def test_the_words_change_the_answer_and_are_no_parameters():
    torch.manual_seed(0)
    model = IIR(replace(LIGHT, dictionary=8)).eval()
    assert {"dictionary.mid", "dictionary.high"} <= set(model.decoder.state_dict())
    assert not {"dictionary.mid", "dictionary.high"} & {n for n, _ in model.decoder.named_parameters()}
    images, masks, queries = episode(shots=1)
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        before = model(queries, state).logits
        # As the query itself, so that it is all background.
        taps = model.backbone(queries)
        model.decoder.dictionary.mid.copy_(F.normalize(taps.mid.flatten(2)[0, :, :8].T, dim=1))
        model.decoder.dictionary.high.copy_(F.normalize(taps.high.flatten(2)[0, :, :8].T, dim=1))
        after = model(queries, state).logits
    assert (before - after).abs().max() > 1e-4


def test_a_run_finds_its_words_in_its_own_pictures_and_learns_how_much_they_count(
    picture_folder,
    tmp_path,
    random_backbone,  # noqa: F811
):
    trainer = build(WORDS, picture_folder, tmp_path / "run")
    trainer.run()
    dictionary, expected = trainer.model.decoder.dictionary, Dictionary(6, *trainer.model.backbone.channels[1:])
    fit_dictionary(expected, trainer.source.first_taps(PICTURES), seed=WORDS.seed)
    for found in (dictionary, trainer.average.module.dictionary):
        torch.testing.assert_close(found.mid, expected.mid)
        torch.testing.assert_close(found.high, expected.high)
    assert dictionary.weight_log.item() != 0
    assert dictionary.near_scale_log.item() != pytest.approx(math.log(10))
