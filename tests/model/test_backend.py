"""Which attention backend is taken, and what is said where it cannot run."""

import logging
import sys
import types

import pytest
import torch

from colorcli.errors import DeviceError, MissingExtraError
from colorcli.model import backend as chooser
from colorcli.model.attention import BACKENDS, KeyValues, attend
from colorcli.model.backend import choose_backend, head_widths, refusal
from tests.model.tiny import normal, unet


@pytest.fixture
def xformers(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in that follows the documented layout: (B, M, H, K) contiguous in, the same out."""
    ops = types.ModuleType("xformers.ops")

    def memory_efficient_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        assert query.is_contiguous() and key.is_contiguous() and value.is_contiguous()
        weights = torch.einsum("bmhk,bnhk->bhmn", query, key) / query.shape[-1] ** 0.5
        return torch.einsum("bhmn,bnhk->bmhk", weights.softmax(-1), value)

    ops.memory_efficient_attention = memory_efficient_attention   # type: ignore[attr-defined]
    package = types.ModuleType("xformers")
    package.ops = ops   # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return ops


def test_both_backends_take_and_give_the_same_layout(xformers):
    q, k, v = normal(2, 9, 3, 8), normal(2, 5, 3, 8, seed=1), normal(1, 5, 3, 8, seed=2).expand(2, -1, -1, -1)
    torch.testing.assert_close(BACKENDS["xformers"](q, k, v), BACKENDS["sdpa"](q, k, v))
    closed = attend(q.flatten(2), KeyValues(k.flatten(2), v.flatten(2)), 3)
    torch.testing.assert_close(BACKENDS["xformers"](q, k, v).flatten(2), closed)


def test_a_backend_that_takes_every_head_is_not_refused(xformers):
    assert refusal("xformers", "cpu", torch.float32, head_widths([unet()])) is None


def test_every_head_of_a_network_is_tried_once():
    assert head_widths([unet()]) == {16}


def wide_heads_are_refused(query, key, value):
    if query.shape[-1] > 256:
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward` with inputs:\n  query")
    return BACKENDS["sdpa"](query, key, value)


def test_a_head_that_is_too_wide_is_refused_in_one_line(xformers, monkeypatch):
    monkeypatch.setitem(BACKENDS, "xformers", wide_heads_are_refused)
    assert refusal("xformers", "cpu", torch.float32, (64, 256)) is None
    why = refusal("xformers", "cpu", torch.float32, (64, 512))
    assert why == "No operator found for `memory_efficient_attention_forward` with inputs:"


def test_a_backend_that_gives_nonsense_is_refused(monkeypatch):
    monkeypatch.setitem(BACKENDS, "xformers", lambda q, k, v: 2 * q)
    assert "is not one" in (refusal("xformers", "cpu", torch.float32, (64,)) or "")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA card whose attention is tried on the CPU."""
    real = chooser.refusal
    monkeypatch.setattr(chooser, "best_backend", lambda device: "xformers")
    monkeypatch.setattr(chooser, "refusal", lambda backend, device, *more: real(backend, "cpu", *more))


def test_on_a_card_xformers_is_taken_if_it_runs(card, xformers):
    assert choose_backend("auto", "cuda", [unet()], torch.float32) == "xformers"
    assert choose_backend("sdpa", "cuda", [unet()], torch.float32) == "sdpa"


def test_xformers_that_does_not_run_is_passed_over_with_a_warning(card, monkeypatch, caplog):
    monkeypatch.setitem(BACKENDS, "xformers", lambda q, k, v: (_ for _ in ()).throw(OSError("undefined symbol: _ZN")))
    with caplog.at_level(logging.WARNING, "colorcli"):
        assert choose_backend("auto", "cuda", [unet()], torch.float32) == "sdpa"
    assert "undefined symbol" in caplog.text


def test_xformers_that_was_asked_for_and_does_not_run_is_an_error(card, monkeypatch):
    monkeypatch.setitem(BACKENDS, "xformers", wide_heads_are_refused)
    monkeypatch.setattr(chooser, "head_widths", lambda networks: {512})
    with pytest.raises(DeviceError, match="does not run here: No operator found") as caught:
        choose_backend("xformers", "cuda", [unet()], torch.float16)
    assert caught.value.hint == "leave --attention out"


def test_xformers_that_is_not_installed_is_an_error_that_says_how(card, monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(MissingExtraError) as caught:
        choose_backend("xformers", "cuda", [unet()], torch.float16)
    assert "pip install xformers" in (caught.value.hint or "")


def test_xformers_on_the_cpu_is_an_error_from_python_too():
    with pytest.raises(DeviceError, match="does not run on cpu"):
        choose_backend("xformers", "cpu", [unet()], torch.float32)
    assert choose_backend("auto", "cpu", [unet()], torch.float32) == "sdpa"
