"""FewShotSegmenter's promises, on a small random checkpoint."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from iir_sdk import FewShotSegmenter, IirError
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines import base as engine
from iir_sdk.engines import pytorch as torch_engine
from iir_sdk.errors import (
    ConfigError,
    DeviceError,
    ImageError,
    LabelError,
    MaskError,
    NoSupportError,
    OutputError,
    SupportError,
    WeightsNotFoundError,
)
from tests.conftest import draw_scene

pytestmark = pytest.mark.filterwarnings("ignore:the support's object")


def scenes(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [draw_scene(rng, (40 + 7 * i, 90 - 5 * i)) for i in range(count)]


def test_a_segmenter_can_be_copied_and_sent_to_another_process(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    first = small_segmenter.predict(scene[0]).probability
    for other in (copy.deepcopy(small_segmenter), pickle.loads(pickle.dumps(small_segmenter))):
        assert np.array_equal(other.predict(scene[0]).probability, first)
        other.add_support(*scenes(1)[0], label="another")
    assert len(small_segmenter.supports) == 1


def test_result_has_the_querys_own_size(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    result = small_segmenter.predict(scenes(2)[1][0])
    assert result.labels == ("object",)
    assert result.mask.shape == result.probability.shape == result.prior.shape == result.label_map.shape == (47, 85)
    assert (result.mask.dtype, result.probability.dtype, result.prior.dtype) == (np.bool_, np.float32, np.float32)
    assert 0 <= result.probability.min() <= result.probability.max() <= 1
    assert 0 <= result.score <= 1
    assert set(result.timings) == {"preprocess", "backbone", "decode"}


def test_the_four_kinds_of_picture_give_one_result(small_segmenter, scene, tmp_path):
    pixels, mask = scene
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    small_segmenter.add_support(tmp_path / "a.png", tmp_path / "m.png")
    expected = small_segmenter.predict(pixels).probability
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    for source in (str(tmp_path / "a.png"), Image.fromarray(pixels), tensor):
        np.testing.assert_array_equal(small_segmenter.predict(source).probability, expected)


def test_labels_and_shots(small_segmenter):
    (a, b, c, query) = scenes(4)
    small_segmenter.add_support(*a, label="cat")
    small_segmenter.add_support(*b, label="dog")
    small_segmenter.add_support(*c, label="cat")
    assert small_segmenter.supports.labels == ("cat", "dog")
    assert small_segmenter.task([s.state for s in small_segmenter.supports.of_label("cat")]).shots == 2
    both = small_segmenter.predict(query[0])
    assert both.labels == ("cat", "dog")
    for label in both.labels:
        alone = small_segmenter.predict(query[0], labels=[label])
        np.testing.assert_allclose(alone.probability, both[label].probability, atol=1e-4)
    turned = small_segmenter.predict(query[0], labels=["dog", "cat"])
    np.testing.assert_allclose(turned.probabilities[::-1], both.probabilities, atol=1e-4)


def test_predict_many_is_predict_in_order(small_segmenter):
    data = scenes(6)
    small_segmenter.add_support(*data[0], label="a")
    small_segmenter.add_support(*data[1], label="b")
    queries = [picture for picture, _ in data[1:]]
    for size in (1, 2, 8):
        many = list(small_segmenter.predict_many(iter(queries), batch_size=size))
        assert len(many) == len(queries)
        for query, result in zip(queries, many, strict=True):
            np.testing.assert_allclose(result.probabilities, small_segmenter.predict(query).probabilities, atol=1e-3)
    assert list(small_segmenter.predict_many([])) == []


def test_predict_many_reads_lazily_and_names_a_broken_picture(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    results = small_segmenter.predict_many([scene[0], scene[0], np.zeros((3, 3))], batch_size=2)
    next(results)
    next(results)
    with pytest.raises(ImageError, match="query 2"):
        next(results)


def test_predict_writes_nothing_and_carries_no_gradient(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    before = dict(vars(small_segmenter))
    weights = {n: t.clone() for n, t in small_segmenter.model.state_dict().items()}
    first = small_segmenter.predict(scene[0])
    second = small_segmenter.predict(scene[0])
    np.testing.assert_array_equal(first.probability, second.probability)
    assert vars(small_segmenter) == before
    assert all(torch.equal(t, weights[n]) for n, t in small_segmenter.model.state_dict().items())
    assert not any(p.requires_grad for p in small_segmenter.model.parameters())


def test_threads_get_what_one_gets(small_segmenter):
    data = scenes(5)
    small_segmenter.add_support(*data[0])
    expected = [small_segmenter.predict(p).probability for p, _ in data]
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = small_segmenter.predict(data[i][0]).probability

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(5):
        np.testing.assert_allclose(found[i], expected[i], atol=1e-5)


def test_the_bank_is_immutable(small_segmenter, scene):
    first = small_segmenter.add_support(*scene, label="a")
    held = small_segmenter.supports
    small_segmenter.add_support(*scene, label="b")
    assert (len(held), len(small_segmenter.supports)) == (1, 2)
    assert [s.label for s in small_segmenter.supports] == ["a", "b"]
    assert small_segmenter.supports[0] is first
    with pytest.raises(AttributeError):
        held.supports = ()  # type: ignore[misc]


def test_removing_supports(small_segmenter, scene):
    one = small_segmenter.add_support(*scene, label="a")
    small_segmenter.add_support(*scene, label="a")
    small_segmenter.add_support(*scene, label="b")
    small_segmenter.remove_support(one)
    assert [s.label for s in small_segmenter.supports] == ["a", "b"]
    with pytest.raises(LabelError, match="not in this bank"):
        small_segmenter.remove_support(one)
    small_segmenter.remove_support("a")
    assert small_segmenter.supports.labels == ("b",)
    with pytest.raises(LabelError, match="'b'"):
        small_segmenter.remove_support("zebra")
    small_segmenter.clear_supports()
    with pytest.raises(NoSupportError, match="add_support"):
        small_segmenter.predict(scene[0])


def test_saved_supports_predict_the_same(small_segmenter, small_checkpoint, tmp_path):
    data = scenes(3)
    small_segmenter.add_support(*data[0], label="katze")
    small_segmenter.add_support(*data[1], label="🐕")
    small_segmenter.save_supports(tmp_path / "supports.safetensors")
    other = FewShotSegmenter(small_checkpoint, device="cpu")
    loaded = other.load_supports(tmp_path / "supports.safetensors")
    assert [(s.label, s.image_size, s.id) for s in loaded] == [
        (s.label, s.image_size, s.id) for s in small_segmenter.supports
    ]
    np.testing.assert_array_equal(
        other.predict(data[2][0]).probabilities, small_segmenter.predict(data[2][0]).probabilities
    )


def test_supports_of_another_checkpoint_are_refused(small_segmenter, embedded, scene, tmp_path):
    small_segmenter.add_support(*scene)
    small_segmenter.save_supports(tmp_path / "s.safetensors")
    with pytest.raises(SupportError, match=r"made with checkpoint 'small'.*iir-duo.*is loaded"):
        embedded.load_supports(tmp_path / "s.safetensors")
    assert len(embedded.supports) == 0


@pytest.fixture(scope="module")
def reader(small_checkpoint) -> FewShotSegmenter:
    return FewShotSegmenter(small_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def kept_supports(reader, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("supports") / "whole.safetensors"
    reader.add_support(*draw_scene(np.random.default_rng(0)))
    reader.save_supports(path)
    return path


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_support_files_are_refused(data, reader, kept_supports):
    reader.clear_supports()
    content = bytearray(kept_supports.read_bytes())
    # The header is what can go wrong; flipped tensor bytes are other numbers, not a broken file.
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, 2500))] = data.draw(st.integers(0, 255))
    broken = kept_supports.with_name("broken.safetensors")
    broken.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        reader.load_supports(broken)
        reader.predict(draw_scene(np.random.default_rng(1))[0])
    except IirError as error:
        assert str(error)


def test_loading_what_is_already_there_adds_nothing(small_segmenter, scene, tmp_path):
    kept = small_segmenter.add_support(*scene)
    small_segmenter.save_supports(tmp_path / "s.safetensors")
    assert [s.id for s in small_segmenter.load_supports(tmp_path / "s.safetensors")] == [kept.id]
    assert len(small_segmenter.supports) == 1


def test_supports_of_other_shapes_are_refused(small_segmenter, scene, tmp_path):
    path = tmp_path / "s.safetensors"
    small_segmenter.add_support(*scene)
    small_segmenter.save_supports(path)
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    for change in (lambda t: t[..., :3].contiguous(), lambda t: t.float(), lambda t: t * torch.nan):
        tensors = load_file(path)
        tensors["supports.0.fused_core"] = change(tensors["supports.0.fused_core"])
        save_file(tensors, tmp_path / "changed.safetensors", metadata)
        with pytest.raises(SupportError, match="fused_core"):
            small_segmenter.load_supports(tmp_path / "changed.safetensors")


def test_threads_may_add_at_once(small_segmenter, scene):
    threads = [threading.Thread(target=small_segmenter.add_support, args=scene) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(small_segmenter.supports) == 8


def test_saving_nothing_and_loading_nothing(small_segmenter, tmp_path):
    with pytest.raises(NoSupportError):
        small_segmenter.save_supports(tmp_path / "s.safetensors")
    with pytest.raises(SupportError, match="no support file"):
        small_segmenter.load_supports(tmp_path / "s.safetensors")


def test_a_refused_support_leaves_the_bank_alone(small_segmenter, scene):
    pixels, mask = scene
    for bad in (np.zeros_like(mask), np.ones_like(mask), mask[:-1]):
        with pytest.raises(MaskError):
            small_segmenter.add_support(pixels, bad)
    assert len(small_segmenter.supports) == 0


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda s, q: s.predict(q, threshold=1.5), ConfigError, r"\[0, 1\]"),
        (lambda s, q: s.predict(q, labels=["dog"]), LabelError, "'object'"),
        (lambda s, q: s.predict(q, labels="object"), LabelError, r"labels=\['object'\]"),
        (lambda s, q: s.predict(q, labels=[]), LabelError, "at least one"),
        (lambda s, q: s.predict(q, labels=["object", "object"]), LabelError, "twice"),
        (lambda s, q: s.predict(q, labels=[["object"]]), LabelError, "string"),
        (lambda s, q: s.predict(q, threshold=None), ConfigError, r"\[0, 1\]"),
        (lambda s, q: s.predict(q, threshold=True), ConfigError, r"\[0, 1\]"),
        (lambda s, q: s.predict(q, absent_below=-0.1), ConfigError, "absent_below"),
        (lambda s, q: s.predict_many([q], batch_size=0), ConfigError, "batch_size"),
        (lambda s, q: s.predict_many([q], batch_size=2.5), ConfigError, "batch_size"),
        (lambda s, q: s.predict_many("a.jpg"), ImageError, "call predict"),
        (lambda s, q: s.predict_many(Path("a.jpg")), ImageError, "call predict"),
        (lambda s, q: s.predict_many(7), ImageError, "call predict"),
        (lambda s, q: s.add_support(q, q[..., 0] > 100, label=""), LabelError, "non-empty"),
    ],
)
def test_what_a_user_can_do_wrong(small_segmenter, scene, call, error, cure):
    small_segmenter.add_support(*scene)
    with pytest.raises(error, match=cure):
        call(small_segmenter, scene[0])


def test_bad_devices_dtypes_and_names(small_checkpoint):
    with pytest.raises(DeviceError, match="auto"):
        FewShotSegmenter(small_checkpoint, device="cuda:99")
    with pytest.raises(DeviceError, match="None"):
        FewShotSegmenter(small_checkpoint, device=None)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="meta"):
        FewShotSegmenter(small_checkpoint, device="meta")
    with pytest.raises(DeviceError, match="abacus"):
        FewShotSegmenter(small_checkpoint, device="abacus")
    with pytest.raises(ConfigError, match="float64"):
        FewShotSegmenter(small_checkpoint, dtype=torch.float64)
    with pytest.raises(WeightsNotFoundError, match="did you mean"):
        FewShotSegmenter.from_pretrained("iir-giant")


@pytest.mark.filterwarnings("ignore:this CPU has no bfloat16")
def test_bfloat16_is_close_to_float32():
    # By trained weights: a random network's features differ so little from place to place that rounding shows.
    job = next(j for j in read_jobs() if j.name == "face")
    found = []
    for dtype in (None, torch.bfloat16):
        segmenter = FewShotSegmenter(device="cpu", dtype=dtype)
        segmenter.add_support(job.support, job.support_mask)
        found.append(segmenter.predict(job.query))
    assert np.abs(found[0].probability - found[1].probability).mean() < 0.01
    assert (found[0].mask & found[1].mask).sum() / (found[0].mask | found[1].mask).sum() > 0.95


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_survives_large_features(small_model, dtype):
    """Sums of squares of real features leave float16's range; they are taken in float32 under autocast too."""
    images, masks = torch.randn(1, 1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    masks[..., 20:60, 30:70] = 1
    taps = small_model.backbone(images[0])
    large = type(taps)(*(t * 100 / t.abs().mean() for t in taps))
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        state = small_model.encode_support_taps(large, masks, 1, 1).state
        found = small_model.decode(large, state)
    assert torch.isfinite(found.shot_weights).all()
    assert torch.isfinite(found.prior).all()
    assert found.prior.dtype == torch.float32


def test_many_labels_and_queries_are_cut_into_chunks(small_segmenter, monkeypatch):
    monkeypatch.setattr(engine, "_LARGEST_DECODE", 4)
    monkeypatch.setattr(torch_engine, "_FEW", 2)
    data = scenes(3)
    for i in range(9):
        small_segmenter.add_support(*data[i % 3], label=f"label {i}")
    results = list(small_segmenter.predict_many([p for p, _ in data] * 2, batch_size=6))
    assert len(results) == 6
    for query, result in zip([p for p, _ in data] * 2, results, strict=True):
        alone = small_segmenter.predict(query, labels=["label 7"])
        np.testing.assert_allclose(result["label 7"].probability, alone.probability, atol=1e-3)
    assert len(small_segmenter._ready.prepared(small_segmenter.supports.labels)) == 3
    few = list(small_segmenter.predict_many([p for p, _ in data] * 2, labels=["label 7"], batch_size=6))
    for one, other in zip(results, few, strict=True):
        np.testing.assert_allclose(one["label 7"].probability, other.probability, atol=1e-3)


def test_two_segmenters_of_one_checkpoint_may_be_on_two_devices(small_checkpoint, scene, monkeypatch):
    first = FewShotSegmenter(small_checkpoint, device="cpu")
    monkeypatch.setattr(torch_engine, "pick_device", lambda _: torch.device("meta"))
    # Comparing values is more than that device can do.
    monkeypatch.setattr(torch_engine, "with_folded_norms", lambda model: model)
    second = FewShotSegmenter(first.checkpoint, device="cuda")
    assert {p.device.type for p in second.model.parameters()} == {"meta"}
    assert {p.device.type for p in first.model.parameters()} == {"cpu"}
    first.add_support(*scene)
    assert first.predict(scene[0]).probability.shape == scene[1].shape


def test_names_that_no_file_can_have_are_errors_of_ours(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    for name in ("n" * 300, "nul\0"):
        with pytest.raises(SupportError, match="no support file"):
            small_segmenter.load_supports(name)
        with pytest.raises(OutputError):
            small_segmenter.save_supports(name)
        with pytest.raises(OutputError):
            small_segmenter.save_pretrained(name)
        with pytest.raises(WeightsNotFoundError):
            FewShotSegmenter(name, backend="openvino")


@pytest.mark.parametrize("labels", ["object", 5, [5], [], ["object", "object"]])
def test_labels_that_are_no_list_of_names_are_refused(small_segmenter, scene, labels):
    small_segmenter.add_support(*scene)
    with pytest.raises(LabelError, match="labels="):
        small_segmenter.predict(scene[0], labels=labels)
    with pytest.raises(LabelError, match="labels="):
        small_segmenter.predict_many([scene[0]], labels=labels)
