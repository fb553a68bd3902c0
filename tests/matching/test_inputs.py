"""Bad input: one clear message of the right type, naming the argument, the value and the remedy."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from apml_plugin.errors import BackendError, LossArgumentError, LossValueError
from apml_plugin.functional import apml_loss, chamfer_distance, earth_movers_distance, matching_plan
from apml_plugin.matching import Settings, backends, check_clouds, extension
from apml_plugin.matching.settings import next_thresholds, warn_if_inexact

GOOD = torch.rand(2, 5, 3)


def with_nan() -> torch.Tensor:
    x = GOOD.clone()
    x[1, 2, 0] = float("nan")
    return x


BAD_CLOUDS = {
    "not a tensor": (([[0.0] * 3],), {}, LossArgumentError, r"pred must be a torch.Tensor .* got list"),
    "two axes": ((GOOD[0], GOOD[0]), {}, LossValueError, r"pred must have shape .* got \(5, 3\): use pred.unsqueeze"),
    "batches differ": (
        (GOOD, GOOD[:1]),
        {},
        LossValueError,
        r"same batch size, got pred \(2, 5, 3\) and gt \(1, 5, 3\)",
    ),
    "channels first": (
        (GOOD, GOOD.transpose(1, 2)),
        {},
        LossValueError,
        r"same number of coordinates, got pred \(2, 5, 3\) and gt \(2, 3, 5\); .* use .transpose\(1, 2\) on",
    ),
    "channels differ": (
        (GOOD, torch.rand(2, 5, 4)),
        {},
        LossValueError,
        r"same number of coordinates, got pred \(2, 5, 3\) and gt \(2, 5, 4\)$",
    ),
    "four axes": ((GOOD[None], GOOD[None]), {}, LossValueError, r"pred must have shape .* got \(1, 2, 5, 3\)$"),
    "integers": (
        (GOOD, GOOD.int()),
        {},
        LossArgumentError,
        r"gt must be floating point, got torch.int32: use gt.float",
    ),
    "complex": ((GOOD, GOOD.to(torch.complex64)), {}, LossArgumentError, r"gt must be floating point"),
    "no coordinates": ((GOOD[..., :0], GOOD[..., :0]), {}, LossValueError, r"at least one coordinate"),
    "devices": (
        (GOOD, GOOD.to("meta")),
        {},
        LossValueError,
        r"same device, got pred on cpu and gt on meta: move one, for example gt.to\('cpu'\)",
    ),
    "nan": (
        (GOOD, with_nan()),
        {},
        LossValueError,
        r"gt\[1\] holds NaN or Inf: 1 of 5 points, the first at gt\[1, 2\] = \[nan, .*check_finite=False skips",
    ),
    "nan among valid points": (
        (with_nan(), GOOD),
        {"pred_lengths": [5, 3]},
        LossValueError,
        r"pred\[1\] holds NaN or Inf: 1 of 3 points, the first at pred\[1, 2\]",
    ),
    "inf": ((GOOD / 0, GOOD), {}, LossValueError, r"pred\[0\] holds NaN or Inf: 5 of 5 points"),
    "lengths too long": (
        (GOOD, GOOD),
        {"gt_lengths": [5, 6]},
        LossValueError,
        r"gt_lengths\[1\]=6 must lie between 0 and 5",
    ),
    "lengths negative": ((GOOD, GOOD), {"pred_lengths": [-1, 5]}, LossValueError, r"pred_lengths\[0\]=-1"),
    "lengths too few": ((GOOD, GOOD), {"pred_lengths": [5]}, LossValueError, r"one length for each of the 2 clouds"),
    "lengths broken": (
        (GOOD, GOOD),
        {"pred_lengths": [2.5, 5]},
        LossArgumentError,
        r"pred_lengths\[0\]=2.5 must be a whole",
    ),
    "lengths not a list": (
        (GOOD, GOOD),
        {"pred_lengths": 5},
        LossArgumentError,
        r"pred_lengths=5 must hold one .*\[5, 3\]",
    ),
    "length not a number": (
        (GOOD, GOOD),
        {"gt_lengths": [5, True]},
        LossArgumentError,
        r"gt_lengths\[1\]=True must be",
    ),
    "length infinite": (
        (GOOD, GOOD),
        {"gt_lengths": [5, float("inf")]},
        LossArgumentError,
        r"gt_lengths\[1\]=inf must",
    ),
    "lengths nested": ((GOOD, GOOD), {"pred_lengths": torch.ones(2, 2)}, LossValueError, r"one length for each"),
}


@pytest.mark.parametrize("function", [apml_loss, chamfer_distance, matching_plan])
@pytest.mark.parametrize("case", BAD_CLOUDS)
def test_bad_clouds(case: str, function) -> None:
    clouds, lengths, error, message = BAD_CLOUDS[case]
    pred, gt = clouds if len(clouds) == 2 else (clouds[0], GOOD)
    with pytest.raises(error, match=message):
        function(pred, gt, **lengths)


def test_nan_in_the_padding_is_no_error() -> None:
    assert torch.isfinite(apml_loss(GOOD, with_nan(), gt_lengths=[5, 2]))


def test_check_can_be_skipped() -> None:
    with pytest.raises(LossValueError):
        apml_loss(with_nan(), GOOD, backend="dense")
    assert torch.isnan(apml_loss(with_nan(), GOOD, backend="dense", check_finite=False))


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("p_min", 1.0, LossValueError, r"p_min=1.0 must lie in \[0, 1\).* 0.8 is usual"),
        ("p_min", -0.1, LossValueError, r"p_min=-0.1"),
        ("p_min", float("nan"), LossValueError, r"p_min=nan must not be NaN"),
        ("p_min", "high", LossArgumentError, r"p_min='high' must be a number"),
        ("p_min", None, LossArgumentError, r"p_min=None must be a number, got NoneType"),
        ("p_min", True, LossArgumentError, r"p_min=True must be a number, got bool"),
        ("threshold", 0, LossValueError, r"threshold=0.0 must lie in \(0, 1\)"),
        (
            "threshold",
            1.0,
            LossValueError,
            r"threshold=1.0 must lie in \(0, 1\) or be 'auto', which is exact to float32; backend='dense'",
        ),
        ("threshold", "automatic", LossArgumentError, r"threshold='automatic' must be a number or 'auto'"),
        ("iterations", -1, LossValueError, r"iterations=-1 must be 0 or more; 20 is usual"),
        ("iterations", 2.5, LossArgumentError, r"iterations=2.5 must be a whole number"),
        ("eps", 0, LossValueError, r"eps=0 must be positive and finite; 1e-8 is usual"),
        ("ties", "fair", LossValueError, r"ties='fair' must be one of 'share', 'uniform'"),
        ("reduction", "avg", LossValueError, r"reduction='avg' must be one of 'sum', 'mean', 'none'"),
        ("backend", "gpu", LossValueError, r"backend='gpu' must be one of"),
    ],
)
def test_bad_options(option: str, value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        apml_loss(GOOD, GOOD, **{option: value})


def test_the_ends_of_the_ranges_are_allowed() -> None:
    settings = Settings(p_min=0, iterations="0", threshold="0.5", eps="1e-3")
    assert (settings.p_min, settings.iterations, settings.threshold, settings.eps) == (0.0, 0, 0.5, 1e-3)
    assert Settings(threshold="auto").threshold == "auto"
    checked = check_clouds(GOOD, GOOD, [5, 0], [5.0, 5], ignore_zeros=False)
    assert (checked.pred_lengths, checked.gt_lengths) == ([5, 0], None)
    assert checked.ragged
    assert not check_clouds(GOOD, GOOD, [5, 5], [5, 5], ignore_zeros=True).ragged


def test_the_next_thresholds_leave_out_what_is_aimed_at() -> None:
    now = torch.tensor([1e-10, 1e-10, 1e-10, 1e-10, 1e-10], dtype=torch.float64)
    scaling = torch.tensor([1.0, 1e20, 1e20, 1e300, torch.inf], dtype=torch.float64)
    share = torch.tensor([0.5, 0.5, 0.0, 0.5, 0.5], dtype=torch.float64)
    others = torch.tensor(8.0, dtype=torch.float64)
    found = next_thresholds(now, 2.0, scaling, share, others)
    # Enough already; lowered; nothing is left out; as small as there is.
    assert found.tolist() == [1e-10, pytest.approx(0.25 * 2.0 / (1e20 * 0.5 * 8), abs=0), 1e-10, 1e-300, 1e-300]


def test_auto_says_when_it_had_to_stop(recwarn: pytest.WarningsRecorder) -> None:
    warn_if_inexact(Settings(threshold=1e-3), torch.float32, [9.0], [1])
    warn_if_inexact(Settings(), torch.float32, [7e-5, 0.0], [7, 0])
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"entries of at most 5.0e-01 of the plan's mass .*backend='dense' keeps all"):
        warn_if_inexact(Settings(), torch.float64, [0.0, 2.0], [1, 4])


def test_a_backend_that_is_named_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "missing", lambda device: None)
    words = "backend='sparse' cannot be used: .*cannot differentiate it; use backend='auto' or 'native' or 'dense'$"
    with pytest.raises(BackendError, match=words):
        apml_loss(GOOD, GOOD, backend="sparse", differentiate_plan=True)
    wide = torch.rand(1, 4, 5)
    words = (
        "backend='native' cannot be used: .* up to 3 coordinates, .* have 5; use backend='auto' or 'sparse' or 'dense'$"
    )
    with pytest.raises(BackendError, match=words):
        apml_loss(wide, wide, backend="native")
    monkeypatch.undo()
    monkeypatch.setattr(extension, "loading_problem", lambda: "nothing was compiled here yet")
    with pytest.raises(BackendError, match="backend='native' cannot be used: there are no compiled ops: nothing was"):
        apml_loss(GOOD, GOOD, backend="native")


def test_numbers_that_yaml_left_as_text_are_read() -> None:
    exact = apml_loss(GOOD, GOOD, threshold=1e-20, eps=1e-8, backend="sparse")
    assert apml_loss(GOOD, GOOD, threshold="1e-20", eps="1e-8", backend="sparse") == exact


def choose(n: int, d: int = 3, **options: bool) -> backends.Choice:
    return backends.choose("auto", torch.empty(1, n, d), torch.empty(1, n, d), **options)


def test_choice_gives_its_reason_without_compiled_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "loading_problem", lambda: "nothing was compiled here yet")
    assert choose(100).name == "dense"
    assert "nothing was compiled" in choose(100).reason
    assert choose(100, exact=False).name == "sparse"  # dense ignores the threshold
    assert choose(4000).name == "sparse"
    assert choose(4000, d=64).name == "dense"
    assert "64 coordinates" in choose(4000, d=64).reason
    assert choose(4000, differentiate_plan=True).name == "dense"
    assert "differentiate_plan" in choose(4000, differentiate_plan=True).reason


def test_compiled_ops_are_taken_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "missing", lambda device: None)
    for d in (1, 2, 3):
        assert choose(100, d=d).name == "native"
    assert choose(4000, differentiate_plan=True).name == "native"
    assert choose(4000, d=4).name == "sparse"
    assert "4 coordinates" not in choose(4000).reason
    assert "have 4" in choose(4000, d=4).reason
    assert choose(4000, d=64).name == "dense"


def test_the_choice_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "apml_plugin.matching"):
        choice = choose(7)
    assert caplog.messages == [f"APML on (1, 7, 3) and (1, 7, 3): {choice.name} ({choice.reason})"]
    named = backends.choose("dense", GOOD, GOOD)
    assert (named.name, named.reason) == ("dense", "named by the caller")


@pytest.mark.parametrize(
    ("sizes", "d", "name", "reason"),
    [
        (
            (512, 512),
            3,
            "dense",
            "512 x 512 points: the whole matrix is cheaper than a search up to 262144; there are no",
        ),
        (
            (512, 513),
            3,
            "sparse",
            "512 x 513 points: a neighbour search is cheaper than the whole matrix; there are no",
        ),
        ((600, 600), 8, "sparse", "600 x 600 points"),
        ((600, 600), 9, "dense", "9 coordinates: a neighbour search gains nothing above 8"),
    ],
)
def test_where_the_choice_changes(
    sizes: tuple[int, int], d: int, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "missing", lambda device: "there are no compiled ops")
    found = backends.choose("auto", torch.empty(1, sizes[0], d), torch.empty(1, sizes[1], d))
    assert found.name == name
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("threshold", "name"), [(1e-20, "dense"), (1e-30, "dense"), ("auto", "dense"), (1e-19, "sparse")]
)
def test_auto_obeys_a_threshold_that_leaves_something_out(
    threshold: float | str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "missing", lambda device: "taken away by a test")
    reasons = []
    choose_backend = backends.choose
    monkeypatch.setattr(backends, "choose", lambda *a, **k: reasons.append(choose_backend(*a, **k)) or reasons[-1])
    apml_loss(GOOD, GOOD, threshold=threshold)
    matching_plan(GOOD, GOOD, threshold=threshold)
    assert [choice.name for choice in reasons] == [name, name]


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("function", [apml_loss, matching_plan, chamfer_distance, earth_movers_distance])
def test_clouds_with_swapped_axes_are_an_error_that_names_transpose(function: Any, rows: int) -> None:
    """(B, 3, N) would be 3 points of N coordinates; the value came without a word."""
    x, y = torch.rand(4, rows, 64), torch.rand(4, rows, 64)
    words = rf"pred \(4, {rows}, 64\) .* {rows} points of 64 coordinates .* use \.transpose\(1, 2\) .*=\[{rows}\] \* 4"
    with pytest.raises(LossValueError, match=words):
        function(x, y)
    function(x, y, pred_lengths=[rows] * 4)  # points of 64 coordinates after all
    function(x[..., :8], y[..., :8])
    function(torch.rand(4, 4, 64), torch.rand(4, 4, 64))
    if function is not earth_movers_distance:
        function(x, torch.rand(4, 5, 64))


def test_a_mask_is_no_lengths() -> None:
    mask = torch.ones(GOOD.shape[:2], dtype=torch.bool)
    with pytest.raises(LossArgumentError, match=r"gt_lengths is a mask and must hold numbers: use mask\.sum\(1\)"):
        apml_loss(GOOD, GOOD, gt_lengths=mask)
