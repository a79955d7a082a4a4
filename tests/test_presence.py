"""The query as its own support, and whether it shows the object at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk import FewShotSegmenter
from iir_sdk.data.episodes import Episode
from iir_sdk.data.folder import read_picture_set
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.evaluation.absence import absent_episodes
from iir_sdk.evaluation.calibration import auroc, calibration_error, fit_scores, logistic_regression
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, draw_episodes
from iir_sdk.evaluation.observation import Observed, present_and_absent
from iir_sdk.model.backbone import Taps
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.model.presence import EVIDENCE, class_agreement, score_logits
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import save_checkpoint
from tests.command import output_of

CONFIG = ModelConfig(
    backbone="test_efficientnet",
    width=8,
    blocks=1,
    cross_blocks=1,
    heads=1,
    head_width=8,
    presence=True,
)


@pytest.fixture(scope="module")
def model() -> IIR:
    torch.manual_seed(0)
    return IIR(CONFIG).eval()


def random_taps(model: IIR, seed: int = 0) -> Taps:
    generator = torch.Generator().manual_seed(seed)
    sides = zip(model.backbone.channels, (8, 4, 2), strict=True)
    return Taps(*(torch.randn(1, c, s, s, generator=generator) for c, s in sides))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Of ``(C, ...)``, along the first axis."""
    return vectors / np.linalg.norm(vectors, axis=0)


def test_the_evidence_is_what_its_names_say(model):
    torch.manual_seed(1)
    images, mask = torch.randn(1, 1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    with torch.inference_mode():
        state = model.encode_support(images, mask)
        query = model.read_query(random_taps(model))
        logits = torch.randn(1, 2, 8, 8)
        found = model.evidence(query, state, torch.ones(1, 1), logits)[0]
    share = torch.softmax(logits, 1)[0, 1].double().numpy().reshape(2, 4, 2, 4).mean((1, 3))
    for i, (seen, prototypes) in enumerate(((query.high, state.high), (query.pooled, state.pooled))):
        mean = np.einsum("hw,chw->c", share, unit(seen.map[0].double().numpy()))
        of_support = prototypes.foreground[0, 0].double().numpy()
        assert float(found[i]) == pytest.approx(float(unit(mean) @ unit(of_support)), abs=1e-4)
    high, of_support = unit(query.high.map[0].double().numpy()), state.high.foreground[0, 0].double().numpy()
    assert float(found[2]) == pytest.approx(
        max(of_support @ high[:, y, x] for y in range(2) for x in range(2)), abs=1e-4
    )
    classes = model.backbone.class_weight.detach().double().numpy()
    both = [classes @ unit(mean), classes @ state.pooled.foreground[0, 0].double().numpy()]
    centred = [unit(scores - scores.mean()) for scores in both]
    shares = [np.exp(4 * scores) / np.exp(4 * scores).sum() for scores in both]
    assert float(found[3]) == pytest.approx(float(centred[0] @ centred[1]), abs=1e-4)
    assert float(found[4]) == pytest.approx(float(np.sqrt(shares[0] * shares[1]).sum()), abs=1e-4)
    leads = [float(fg - bg) for bg, fg in zip(*logits[0].flatten(1), strict=True) if fg > bg]
    assert float(found[5]) == pytest.approx(np.mean(leads), abs=1e-5)
    fine = torch.softmax(logits, 1)[0, 1].double().numpy()
    for i, seen, of_support in (
        (6, query.mid, state.mid.foreground),
        (7, query.low, state.low.foreground),
        (8, query.pooled, state.pooled.background),
    ):
        side = seen.map.shape[2]
        share = fine.reshape(side, 8 // side, side, 8 // side).mean((1, 3))
        mean = np.einsum("hw,chw->c", share, unit(seen.map[0].double().numpy()))
        assert float(found[i]) == pytest.approx(float(unit(mean) @ of_support[0, 0].double().numpy()), abs=1e-4)
    assert float(found[9]) == pytest.approx(np.log(fine.mean() + 1e-4), abs=1e-5)
    assert len(found) == len(EVIDENCE)
    with torch.inference_mode():
        nothing = model.evidence(
            query, state, torch.ones(1, 1), torch.tensor([3.0, -3.0])[:, None, None] * logits.abs()
        )
    assert float(nothing[0, 5]) == 0
    assert torch.isfinite(nothing).all()


def test_how_alike_the_classifier_finds_two_objects_equals_the_formula():
    same, other = torch.eye(8)[None, :1], torch.eye(8)[None, 1:2]
    cosine, overlap = class_agreement(same, torch.cat([same, other], 1), torch.eye(8))
    assert cosine[0].tolist() == pytest.approx([1, -1 / 7], abs=1e-6)
    share = np.exp([4, *[0] * 7]) / (np.exp(4) + 7)
    assert overlap[0].tolist() == pytest.approx([1, 2 * np.sqrt(share[0] * share[1]) + 6 * share[1]], abs=1e-6)


def test_a_fitted_head_tells_two_kinds_of_evidence_apart_in_any_precision():
    """Shown where likeness is high; a tenth of the mask is right where its lead is small, nine tenths where large."""
    torch.manual_seed(0)
    likeness = torch.cat([torch.full((80, 9), 0.8), torch.full((40, 9), 0.2)]) + 0.05 * torch.randn(120, 9)
    lead = torch.tensor([1.0] * 40 + [4.0] * 40 + [2.0] * 40)[:, None]
    lead_at = EVIDENCE.index("lead")
    shown, right = torch.tensor([1.0] * 80 + [0.0] * 40), torch.tensor([0.1] * 40 + [0.9] * 40 + [0.0] * 40)
    right[0] = -1.0
    evidence = torch.cat([likeness[:, :lead_at], lead, likeness[:, lead_at:]], 1)
    observed = Observed(evidence, shown, right, right.clamp_min(0), ("thing",) * 120)
    fitted = fit_scores(IIR(replace(CONFIG, presence=False)), {"set": observed})
    assert (fitted.config.presence, fitted.config.evidence) == (True, len(EVIDENCE))
    head = fitted.decoder.scores
    three = torch.tensor([[0.8] * 10, [0.8] * 10, [0.2] * 10])
    three[:, lead_at] = torch.tensor([1.0, 4.0, 2.0])
    presence, confidence = score_logits(three, head).sigmoid().T.tolist()
    assert min(presence[:2]) > 0.9
    assert presence[2] < 0.1
    assert confidence[:2] == pytest.approx([0.1, 0.9], abs=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(score_logits(three, head), score_logits(three, head.float()), rtol=0, atol=0)
        assert score_logits(three, head).dtype == torch.float32
    with pytest.raises(DatasetError, match="0 of 80 pictures"):
        fit_scores(IIR(CONFIG), {"set": observed._replace(right=torch.full((120,), -1.0))})
    again = fit_scores(fitted, {"set": observed})
    assert torch.equal(again.decoder.scores.weight, head.weight)


def test_what_is_right_of_a_mask_is_counted_at_the_pictures_own_size(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    protocol = Protocol(episodes=4, seeds=(2,))
    observed = present_and_absent(small_segmenter, pictures, protocol)
    assert observed.shown.tolist() == [1.0] * 4 + [0.0] * 4
    assert observed.evidence.shape == (8, len(EVIDENCE))
    assert set(observed.classes) == {"cat", "dog"}
    for i, episode in enumerate(draw_episodes(pictures, protocol)[2]):
        found = Evaluator(small_segmenter, pictures).probability(episode) > 0.5
        target = pictures.mask(episode.name, episode.query) == 1
        expected = (found & target).sum() / found.sum() if found.any() else -1.0
        assert float(observed.right[i]) == pytest.approx(float(expected), abs=5e-3)
        assert float(observed.iou[i]) == pytest.approx(float((found & target).sum() / (found | target).sum()), abs=5e-3)
    assert not observed.right[4:].any()


def test_logistic_regression_ends_where_the_gradient_is_zero(rng):
    inputs = torch.tensor(rng.normal(0.5, [0.1, 3.0], (300, 2)), dtype=torch.float32)
    labels = torch.tensor(rng.uniform(size=300) < 1 / (1 + np.exp(-(8 * inputs[:, 0].numpy() - 4)))).float()
    weight, bias = logistic_regression(inputs, labels, decay=0.0)
    residual = (inputs @ weight + bias).sigmoid() - labels
    assert abs(float(residual.mean())) < 1e-4
    assert float((inputs * residual[:, None]).mean(0).abs().max()) < 1e-3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(1, 6))
def test_auroc_counts_pairs(seed, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, 20).astype(np.float32)
    positive = np.arange(20) % 3 == 0
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


def test_calibration_error_of_known_bins():
    probability = np.array([0.05, 0.05, 0.95, 0.95], np.float32)
    assert calibration_error(probability, np.array([0, 0, 1, 1], np.float32)) == pytest.approx(0.05)
    assert calibration_error(probability, np.array([1, 1, 0, 0], np.float32)) == pytest.approx(0.95)
    assert calibration_error(np.ones(4, np.float32), np.array([1, 1, 1, 0], np.float32)) == pytest.approx(0.25)
    assert calibration_error(probability, np.array([0.1, 0.0, 0.9, 1.0], np.float32)) == pytest.approx(0, abs=1e-6)


class Pictures:
    """Two classes; picture ``both`` shows both."""

    name = "pictures"

    def __init__(self, **classes: tuple[str, ...]) -> None:
        self.classes = classes

    def picture(self, key: str) -> np.ndarray:
        raise AssertionError(key)

    mask = picture


def test_absent_queries_never_show_the_class():
    pictures = Pictures(cat=("a", "b", "both"), dog=("c#1", "c#2", "both"))
    present = [Episode("cat", ("a",), "b"), Episode("dog", ("c#1",), "both")] * 10
    absent = absent_episodes(pictures, present, seed=0)
    assert {e.query for e in absent if e.name == "cat"} <= {"c#1", "c#2"}
    assert {e.query for e in absent if e.name == "dog"} <= {"a", "b"}
    assert [e.supports for e in absent] == [e.supports for e in present]
    assert absent == absent_episodes(pictures, present, seed=0)
    with pytest.raises(DatasetError, match="every picture shows 'cat'"):
        absent_episodes(Pictures(cat=("a", "b")), present[:1], seed=0)


def test_pictures_that_show_the_class_too_small_for_an_episode_are_not_absent_ones():
    pictures = Pictures(cat=("a", "b"), dog=("c", "d", "e"))
    pictures.seen = {"a": ("cat",), "b": ("cat",), "c": ("dog", "cat"), "d": ("dog",), "e": ("dog", "cat")}
    absent = absent_episodes(pictures, [Episode("cat", ("a",), "b")] * 20, seed=0)
    assert {e.query for e in absent} == {"d"}


# Through the doors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("presence") / "model.safetensors"
    save_checkpoint(IIR(replace(CONFIG, presence=False)), Preprocessing(size=96, support_size=64), path)
    return path


def test_calibrating_adds_scores_and_changes_no_mask(checkpoint, picture_folder, tmp_path):
    run = tmp_path / "model.safetensors"
    run.write_bytes(checkpoint.read_bytes())
    before = FewShotSegmenter(run, device="cpu")
    output_of("calibrate", run, "--data", picture_folder / "coco", "--episodes", 8)
    after = FewShotSegmenter(run, device="cpu")
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (80, 90, 3)).astype(np.uint8), np.zeros((80, 90), bool)
    mask[20:50, 30:70] = True
    for segmenter in (before, after):
        segmenter.add_support(picture, mask)
    # At this threshold every pixel is in the mask, whatever the random network says.
    one, other = (s.predict(picture, threshold=0.0) for s in (before, after))
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)
    assert 0 < other.score < 1
    assert other.score != pytest.approx(one.score)
    assert 0 < other.confidence < 1
    assert one.confidence == one.score
    assert other.mask.all()
    assert np.array_equal(one.mask, other.mask)
    above = float(np.nextafter(np.float32(other.score), np.float32(1)))
    emptied = after.predict(picture, threshold=0.0, absent_below=above)
    assert not emptied.mask.any()
    assert emptied.confidence == 0
    assert after.predict(picture, threshold=0.0, absent_below=other.score).mask.all()
    (batched,) = after.predict_many([picture], threshold=0.0, absent_below=above)
    assert not batched.mask.any()
    with pytest.raises(ConfigError, match="iir-sdk calibrate"):
        before.predict(picture, absent_below=0.5)
    json_file = tmp_path / "presence.json"
    scored = ("evaluate", "--data", picture_folder / "coco", "--weights", run, "--absent", "--episodes", 4)
    output = output_of(*scored, "--json", json_file)
    assert "AUROC" in output
    assert "of the confidence" in output
    assert json_file.exists()


def test_what_cannot_be_calibrated_is_refused_and_left_as_it_is(checkpoint, picture_folder, tmp_path):
    saved = tmp_path / "saved"
    FewShotSegmenter(checkpoint, device="cpu").save_pretrained(saved)
    for run, data, code, says in (
        (saved, picture_folder / "coco", 2, "calibrate the training run"),
        (checkpoint, picture_folder / "coins", 1, "every picture shows 'coin'"),
        (tmp_path / "nowhere", picture_folder / "coco", 2, "does not exist"),
    ):
        content = checkpoint.read_bytes()
        assert says in output_of("calibrate", run, "--data", data, code=code)
        assert checkpoint.read_bytes() == content
    FewShotSegmenter(saved, device="cpu")


def test_a_checkpoint_without_the_head_cannot_be_scored_for_it(checkpoint, picture_folder):
    scored = ("evaluate", "--data", picture_folder / "coco", "--weights", checkpoint, "--absent")
    assert "iir-sdk calibrate" in output_of(*scored, code=1)
