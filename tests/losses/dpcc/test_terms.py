"""D-PCC's terms against loops in Python numbers, on tensors of its real shapes; the blog's worked examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses.dpcc.slow import OUTPUTS, SIZES, outputs, terms, turned

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import chamfer_distance, nearest_neighbours
from apml_plugin.losses import APML, ChamferL2, DPCCDistortion, DPCCOutputs, DPCCPointsNumber, OneSidedChamfer
from apml_plugin.registry import LOSSES, build_loss

ALONE = {
    "distortion": "DPCCDistortion",
    "density": "DPCCDensity",
    "points_number": "DPCCPointsNumber",
    "latent": "DPCCLatent",
    "normal": "DPCCNormal",
    "rate": "Rate",
}
Real = tuple[dict[str, Any], dict[str, float]]
SMALL: dict[str, Any] = {"sizes": (12, 7, 5), "latent": 3, "given": (4, 6, 11)}


@pytest.fixture(scope="module")
def real_shapes() -> Real:
    given = outputs()
    return given, terms(given)


@pytest.mark.parametrize(("term", "name"), ALONE.items())
@pytest.mark.parametrize("layout", ["BN3", "B3N"])
def test_each_term_alone_equals_its_formula(real_shapes: Real, term: str, name: str, layout: str) -> None:
    given, expected = real_shapes
    loss = build_loss({"NAME": name, "layout": layout})
    value = loss(given if layout == "BN3" else turned(given))
    assert value.shape == ()
    assert value.item() == pytest.approx(expected[term], rel=1e-12)


def test_the_composite_is_the_sum_of_its_terms_in_both_layouts(real_shapes: Real) -> None:
    given, expected = real_shapes
    loss = build_loss("DPCC")
    found = loss.terms(DPCCOutputs(**given))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-12)
    assert loss(given).item() == pytest.approx(sum(expected.values()), rel=1e-12)
    other = build_loss({"NAME": "DPCC", "layout": "B3N"})(turned(given))
    assert other.item() == pytest.approx(loss(given).item(), rel=1e-14)


def test_half_precision_is_computed_in_float32() -> None:
    given = outputs(**SMALL, dtype=torch.float16)
    value = build_loss("DPCC")(given)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(sum(terms(given).values()), rel=1e-4)


@pytest.mark.parametrize("term", [*ALONE, "all"])
def test_gradcheck(term: str) -> None:
    given = outputs(batch=1, sizes=(6, 4, 3), latent=2, given=(3, 4, 5))
    trained = [
        *(f"{name}[{i}]" for name in ("pred_xyzs", "pred_unums", "pred_mdis") for i in range(3)),
        "pred_latent_xyzs",
        "features",
        "likelihoods[0]",
    ]
    loss = build_loss("DPCC" if term == "all" else ALONE[term])

    def of(*values: torch.Tensor) -> torch.Tensor:
        made = {name: list(value) if isinstance(value, list) else value for name, value in given.items()}
        for where, value in zip(trained, values, strict=True):
            name, _, index = where.rstrip("]").partition("[")
            if index:
                made[name][int(index)] = value
            else:
                made[name] = value
        return 1e3 * loss(made)

    def entry(where: str) -> torch.Tensor:
        name, _, index = where.rstrip("]").partition("[")
        return (given[name][int(index)] if index else given[name]).clone().requires_grad_()

    assert torch.autograd.gradcheck(of, tuple(entry(where) for where in trained))


def test_the_order_of_points_does_not_matter() -> None:
    """Points of decoder clouds, with what lives on them, in another order; encoder points likewise."""
    given = outputs(**SMALL)
    mixed = {name: list(value) if isinstance(value, list) else value for name, value in given.items()}
    for i, n in enumerate(SMALL["given"]):
        order = torch.randperm(n)
        mixed["pred_xyzs"][i] = given["pred_xyzs"][i][:, order]
        if i + 1 < len(SMALL["given"]):
            for name in ("pred_unums", "pred_mdis"):
                mixed[name][i + 1] = given[name][i + 1][:, order]
        else:
            mixed["features"] = given["features"][:, order]
    for s, n in enumerate(SMALL["sizes"]):
        order = torch.randperm(n)
        mixed["gt_xyzs"][s] = given["gt_xyzs"][s][:, order]
        if s > 0:
            for name in ("gt_dnums", "gt_mdis"):
                mixed[name][s - 1] = given[name][s - 1][:, order]
        else:
            mixed["gt_normals"] = given["gt_normals"][:, order]
    torch.testing.assert_close(build_loss("DPCC")(mixed), build_loss("DPCC")(given), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["DPCC", *ALONE.values()])
def test_padding_changes_nothing_and_gets_no_gradient(name: str) -> None:
    """Padded with NaN, all of the same lengths: equal. Of different lengths: the mean over clouds of their own."""
    given = outputs(**SMALL)
    loss = build_loss(name)
    value = loss({**given, "likelihoods": given["likelihoods"]})
    padded = dict(given)
    leaves: list[torch.Tensor] = []

    def pad(x: torch.Tensor) -> torch.Tensor:
        x = x.double()
        leaf = torch.cat((x, torch.full_like(x, torch.nan)[:, :2]), dim=1).requires_grad_()
        leaves.append(leaf)
        return leaf

    for key in ("gt_xyzs", "pred_xyzs", "gt_dnums", "gt_mdis", "pred_unums", "pred_mdis"):
        padded[key] = [pad(x) for x in given[key]]
    for key in ("latent_xyzs", "pred_latent_xyzs", "gt_normals", "features"):
        padded[key] = pad(given[key])
    padded["gt_lengths"] = [[n, n] for n in SMALL["sizes"]]
    padded["pred_lengths"] = [torch.tensor([n, n]) for n in SMALL["given"]]
    padded["latent_lengths"] = [3, 3]
    same = loss(padded)
    assert same.item() == pytest.approx(value.item(), rel=1e-12)
    if same.requires_grad:
        same.backward()
    for leaf in leaves:
        assert leaf.grad is None or bool((leaf.grad[:, -2:] == 0).all())
        assert leaf.grad is None or bool(torch.isfinite(leaf.grad).all())


def test_clouds_of_different_lengths_count_as_each_alone() -> None:
    """Of means, the batch's is the mean; of the points numbers, the sums are taken first."""
    one, two = outputs(batch=1, **SMALL), outputs(batch=1, sizes=(9, 6, 4), latent=2, given=(3, 5, 8), seed=3)
    loss = build_loss({"NAME": "DPCC", "pts_num_coe": 0, "bpp_lambda": 0})

    def padded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        fill = torch.full((1, a.shape[1] - b.shape[1], *a.shape[2:]), 7, dtype=a.dtype)
        return torch.cat((a, torch.cat((b, fill), dim=1)))

    both: dict[str, Any] = {}
    for key in one:
        if key == "likelihoods":
            continue
        pairs = zip(one[key], two[key], strict=True) if isinstance(one[key], list) else [(one[key], two[key])]
        both[key] = [padded(a, b) for a, b in pairs]
        both[key] = both[key] if isinstance(one[key], list) else both[key][0]
    both["gt_lengths"], both["pred_lengths"] = [[12, 9], [7, 6], [5, 4]], [[4, 3], [6, 5], [11, 8]]
    both["latent_lengths"] = [3, 2]
    assert loss(both).item() == pytest.approx((loss(one) + loss(two)).item() / 2, rel=1e-12)
    number = DPCCPointsNumber(1.0)(both).item()
    asked = [float(a.sum() + b.sum()) for a, b in zip(one["pred_unums"], two["pred_unums"], strict=True)]
    assert number == pytest.approx(sum(abs(a - n) for a, n in zip(asked, (5 + 4, 7 + 6, 12 + 9), strict=True)))


# The blog's worked examples, on a line.


def test_the_blogs_first_chamfer_example() -> None:
    p = torch.tensor([[[0.0, 0], [2, 0]]], requires_grad=True)
    q = torch.tensor([[[0.5, 0], [3, 0]]], requires_grad=True)
    loss = ChamferL2(reduction="sum")(p, q)
    assert loss.item() == 2.5
    assert ChamferL2()(p, q).item() == 1.25
    assert DPCCDistortion()({"gt_xyzs": [q], "pred_xyzs": [p]}).item() == 1.25
    _, there = nearest_neighbours(p[0].detach(), q[0].detach())
    assert there.tolist() == [0, 1]
    loss.backward()
    assert p.grad is not None
    assert q.grad is not None
    assert p.grad.tolist() == [[[-2, 0], [-4, 0]]]
    assert q.grad.tolist() == [[[2, 0], [4, 0]]]
    torch.testing.assert_close((p - 0.1 * p.grad).detach(), torch.tensor([[[0.2, 0], [2.4, 0]]]))
    torch.testing.assert_close((q - 0.1 * q.grad).detach(), torch.tensor([[[0.3, 0], [2.6, 0]]]))


def test_the_blogs_asymmetric_example() -> None:
    p = torch.tensor([[[0.0, 0], [1, 0]]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[[0.6, 0], [3, 0]]], dtype=torch.float64)
    assert nearest_neighbours(p[0].detach(), q[0])[1].tolist() == [0, 0]
    assert nearest_neighbours(q[0], p[0].detach())[1].tolist() == [1, 1]
    (both,) = torch.autograd.grad(ChamferL2(reduction="sum")(p, q), p)
    torch.testing.assert_close(both, torch.tensor([[[-1.2, 0], [-2.4, 0]]], dtype=torch.float64))
    torch.testing.assert_close(p - 0.1 * both, torch.tensor([[[0.12, 0], [1.24, 0]]], dtype=torch.float64))
    one_sided = OneSidedChamfer(direction="pred_to_gt", norm="L2", reduction="sum")
    (one,) = torch.autograd.grad(one_sided(p, q), p)
    torch.testing.assert_close(one, torch.tensor([[[-1.2, 0], [0.8, 0]]], dtype=torch.float64))


def test_several_points_that_share_a_neighbour_pull_it_to_their_mean() -> None:
    p = torch.tensor([[[0.0, 0], [0.2, 0]]], dtype=torch.float64)
    q = torch.tensor([[[1.0, 0]]], dtype=torch.float64, requires_grad=True)
    (pull,) = torch.autograd.grad(chamfer_distance(p, q, direction="pred_to_gt", reduction="sum"), q)
    assert pull.tolist() == [[[pytest.approx(2 * 1.0 + 2 * 0.8), 0]]]


def test_density_and_points_number_of_hand_made_tensors() -> None:
    """Two stages on a line; every number is worked out by hand."""
    on_line = [torch.tensor([[[x, 0.0, 0.0] for x in line]]) for line in ([0, 1, 2, 3], [0.2, 2.9])]
    given: dict[str, Any] = {
        "gt_xyzs": on_line,  # 4 points, of which 2 are kept, of which 1 is the latent
        "pred_xyzs": [torch.tensor([[[3.0, 0, 0], [0.1, 0, 0], [2.8, 0, 0]]]), torch.zeros(1, 4, 3)],
        "gt_dnums": [torch.tensor([[3, 1]]), torch.tensor([[2]])],
        "gt_mdis": [torch.tensor([[0.5, 0.25]]), torch.tensor([[1.35]])],
        "pred_unums": [torch.tensor([[2.5]]), torch.tensor([[1.0, 2.0, 3.0]])],
        "pred_mdis": [torch.tensor([[1.25]]), torch.tensor([[0.25, 0.5, 0.75]])],
    }
    # Stage 0 by position: |2.5 - 2| and |1.25 - 1.35|. Stage 1: nearest of (0.2, 2.9) to 3, 0.1, 2.8 are 1, 0, 1, so
    # counts (1, 3, 1) against (1, 2, 3) and distances (0.25, 0.5, 0.25) against (0.25, 0.5, 0.75).
    counts, distances = 0.5 + (0 + 1 + 2) / 3, 0.1 + (0 + 0 + 0.5) / 3
    published = build_loss("DPCCDensity")(given)
    assert published.item() == pytest.approx(1e-4 * (counts + 50 * distances), rel=1e-6)
    blog = build_loss({"NAME": "DPCCDensity", "density_coe": 1, "mean_distance_coe": 1})(given)
    assert blog.item() == pytest.approx(counts + distances, rel=1e-6)
    # |2.5 - 2| + |6 - 4|
    assert build_loss("DPCCPointsNumber")(given).item() == pytest.approx(5e-7 * 2.5, rel=1e-6)


def test_wrong_indices_raise_an_error_that_names_them() -> None:
    """all_pred2gt_idx[i] instead of [i - 1]: the shapes tell, as D-PCC's own cannot."""
    given = outputs()
    reached = {name: torch.full((2, n), 24) for name, n in zip("abc", OUTPUTS, strict=True)}
    with pytest.raises(
        LossValueError, match=r"^pred2gt\[0\] must have shape \(2, 29\), an index .* of pred_xyzs\[0\], got"
    ):
        build_loss("DPCCDensity")({**given, "pred2gt": [reached["b"], reached["c"], reached["a"]]})
    reached["a"][0, 0] = SIZES[0] - 1
    with pytest.raises(
        LossValueError, match=r"^pred2gt\[0\] reaches from 24 to 269, but gt_xyzs\[2\] has 30 points: give"
    ):
        build_loss("DPCCDensity")({**given, "pred2gt": [reached["a"], reached["b"], reached["c"]]})
    reached["a"][0, 0], reached["b"][0, 0] = 24, SIZES[1]
    message = rf"^pred2gt\[1\] reaches from 24 to {SIZES[1]}, but gt_xyzs\[1\] has {SIZES[1]} points: give"
    with pytest.raises(LossValueError, match=message):
        build_loss("DPCCDensity")({**given, "pred2gt": [reached["a"], reached["b"], reached["c"]]})


def test_given_indices_are_used() -> None:
    given = outputs(**SMALL)
    index = [torch.stack([nearest_neighbours(p, g)[1] for p, g in zip(pred, gt, strict=True)])
             for pred, gt in zip(given["pred_xyzs"], reversed(given["gt_xyzs"]), strict=True)]  # fmt: skip
    for name in ("DPCCDensity", "DPCCNormal"):
        loss = build_loss(name)
        assert loss({**given, "pred2gt": index}) == loss(given)
        assert loss({**given, "pred2gt": [torch.zeros_like(i) for i in index]}) != loss(given)
        assert loss({**given, "pred2gt": [i.int() for i in index]}) == loss(given)


def test_points_without_a_neighbour_and_padding_are_left_out() -> None:
    given = outputs(batch=1, **SMALL)
    index = [torch.zeros(1, n, dtype=torch.long) for n in SMALL["given"]]
    index[0][0, 0] = -1
    padded = {**given, "pred2gt": index, "pred_lengths": [[3], None, None]}
    cut = {name: [t[:, 1:3] if i == at else t for i, t in enumerate(given[name])]
           for name, at in (("pred_xyzs", 0), ("pred_unums", 1), ("pred_mdis", 1))}  # fmt: skip
    cut["pred2gt"] = [index[0][:, 1:3], *index[1:]]
    torch.testing.assert_close(build_loss("DPCCDensity")(padded), build_loss("DPCCDensity")({**given, **cut}))


def test_distortion_by_a_word() -> None:
    given = outputs(**SMALL)
    stages = list(zip(given["pred_xyzs"], reversed(given["gt_xyzs"]), strict=True))
    for distortion, plain in (
        ("APML", APML()),
        ({"NAME": "APML", "reduction": "mean", "p_min": 0.7}, APML(reduction="mean", p_min=0.7)),
        ("ChamferL2", ChamferL2()),
    ):
        values = [plain(pred, gt) for pred, gt in stages]
        expected = 0.1 * (values[0] + values[1]) + values[2]
        for name in ("DPCC", "DPCCDistortion"):
            loss = build_loss({"NAME": name, "distortion": distortion})
            found = loss.terms(given)["distortion"] if name == "DPCC" else loss(given)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    other, usual = build_loss({"NAME": "DPCC", "distortion": "APML"}), build_loss("DPCC")
    assert "distortion=APML(p_min=0.8" in other.describe()
    for name, value in usual.terms(given).items():
        if name != "distortion":
            assert other.terms(given)[name] == value


def test_distortions_that_cannot_be_used() -> None:
    for wrong in (APML, "APML", 1):
        with pytest.raises(LossArgumentError, match=r"^distortion=.* use build_loss\({'NAME': 'DPCCDistortion', 'dist"):
            LOSSES.get("DPCC")(distortion=wrong)
    for wrong in ("DPCCLatent", {"coarse": "APML"}):
        with pytest.raises(
            LossArgumentError,
            match=r"^distortion=(coarse: APML|DPCCLatent)\(.*\) cannot be called with two clouds; give one such",
        ):
            build_loss({"NAME": "DPCC", "distortion": wrong})
    with pytest.raises(LossValueError, match=r"^distortion=APML\(.* gave a tensor of shape \(2,\), one number"):
        build_loss({"NAME": "DPCCDistortion", "distortion": {"NAME": "APML", "reduction": "none"}})(outputs(**SMALL))


@pytest.mark.parametrize("name", ["DPCC", *ALONE.values()])
def test_two_clouds_raise_an_error_that_says_what_is_needed(name: str) -> None:
    loss = build_loss(name)
    assert loss.needs.startswith(f"{name} needs ")
    x = torch.rand(2, 5, 3)
    for given, got in (
        ((x, x), "two clouds"),
        ((x, x, None, None), "two clouds"),
        (({}, x), "two clouds"),
        ((x,), "no points" if name == "Rate" else "one Tensor"),
        (([x, x],), "no points" if name == "Rate" else "one list"),
        ((None,), "no likelihoods" if name == "Rate" else "one NoneType"),
    ):
        with pytest.raises(LossArgumentError, match=rf"^{name} needs .*; got {got}(\.|$)"):
            loss(*given)


CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("DPCC", {"gt_xyz": []}, "no field 'gt_xyz': did you mean 'gt_xyzs'"),
    ("DPCC", {"gt_xyzs": None}, "^DPCC needs .*; gt_xyzs is missing$"),
    ("DPCC", {"pred_mdis": None}, "^DPCC needs .*; pred_mdis is missing$"),
    ("DPCC", {"likelihoods": None}, "^DPCC needs .*; likelihoods is missing$"),
    ("DPCC", {"features": None}, "^features is missing, which belongs to gt_normals: give both or neither$"),
    ("DPCC", {"gt_normals": None}, "^gt_normals is missing, which belongs to features: give both or neither$"),
    (
        "DPCC",
        {"latent_xyzs": None},
        "^latent_xyzs is missing, which belongs to pred_latent_xyzs: give both or neither$",
    ),
    (
        "DPCC",
        {"pred_xyzs": torch.rand(2, 5, 3)},
        r"^pred_xyzs must be a list with one entry .*, got Tensor: write \[pred_xyzs\] for a single stage$",
    ),
    ("DPCC", {"pred_xyzs": "coarse"}, r"^pred_xyzs must be a list with one entry for each stage, got str"),
    ("DPCC", {"pred_xyzs": 3}, r"^pred_xyzs must be a list with one entry for each stage, got int"),
    ("DPCC", {"pred_xyzs": [torch.rand(2, 5, 3)]}, "^pred_xyzs must hold one entry for each of the 3 stages, got 1$"),
    ("DPCC", {"gt_xyzs": []}, "^gt_xyzs must hold one entry for each of the 1 stages, got 0$"),
    (
        "DPCC",
        {"gt_xyzs": [torch.rand(2, 5, 3)] * 2 + [torch.rand(1, 5, 3)]},
        r"^gt_xyzs\[2\] holds 1 clouds and gt_xyzs\[0\] 2: all stages must have as many$",
    ),
    (
        "DPCC",
        {"pred_xyzs": [torch.rand(2, 5, 3)] * 2 + [torch.rand(5, 3)]},
        r"^pred_xyzs\[2\] must have shape \(B, N, 3\), got \(5, 3\)$",
    ),
    ("DPCC", {"pred_xyzs": [[1.0]] * 3}, r"^pred_xyzs\[0\] must be a torch.Tensor of shape \(B, N, 3\), got list$"),
    (
        "DPCC",
        {"pred_xyzs": [torch.ones(2, 5, 3, dtype=torch.int64)] * 3},
        r"^pred_xyzs\[0\] must be floating point, got torch.int64: use .float\(\)$",
    ),
    (
        "DPCC",
        {"pred_xyzs": [torch.rand(3, 5, 3)] * 3},
        r"^pred_xyzs\[0\] \(pred\) and gt_xyzs\[2\] \(gt, as \(B, N, 3\)\), stage 0: .* same batch size",
    ),
    ("DPCC", {"pred_xyzs": [torch.full((2, 5, 3), torch.nan)] * 3}, r"^pred_xyzs\[0\] .* holds NaN or Inf"),
    ("DPCC", {"gt_lengths": [[13, 12], None, None]}, r"gt_lengths\[0\]=13"),
    ("DPCCDensity", {"latent_lengths": [1, 4]}, r"^latent_lengths\[1\]=4 must lie between 0 and 3"),
    ("DPCCPointsNumber", {"gt_lengths": [[13, 12], None, None]}, r"^gt_lengths\[0\]\[0\]=13 must lie between 0 and 12"),
    (
        "DPCCDensity",
        {"gt_mdis": [torch.full((2, n), torch.nan) for n in (7, 5, 3)]},
        r"^gt_mdis\[2\] holds NaN or Inf: .*; density_stats gives 0 for a sample without points$",
    ),
    (
        "DPCCDensity",
        {"pred_mdis": [torch.full((2, n), torch.inf) for n in (3, 4, 6)]},
        r"^pred_mdis\[0\] holds NaN or Inf",
    ),
    (
        "DPCCDensity",
        {"gt_dnums": [torch.ones(2, n) for n in (12, 7, 5)]},
        r"^gt_dnums\[2\] must have shape \(2, 3\), one number for each point of latent_xyzs, got \(2, 5\)$",
    ),
    (
        "DPCCDensity",
        {"gt_dnums": [torch.ones(2, n) for n in (7, 7, 3)]},
        r"^gt_dnums\[1\] must have shape \(2, 5\), one number for each point of gt_xyzs\[2\], got \(2, 7\)$",
    ),
    (
        "DPCCDensity",
        {"pred_unums": [torch.ones(2, n) for n in (3, 6, 6)]},
        r"^pred_unums\[1\] must have shape \(2, 4\), one number for each point of pred_xyzs\[0\], got \(2, 6\)$",
    ),
    (
        "DPCCDensity",
        {"pred_unums": [torch.ones(2, 3, device="meta")] * 3},
        r"^pred_unums\[0\] is on meta and gt_xyzs\[0\] on cpu: move one$",
    ),
    (
        "DPCCDensity",
        {"pred2gt": [torch.zeros(2, 4)] * 3},
        r"^pred2gt\[0\] must be a torch.Tensor of whole numbers \(B, N\), got torch.float32$",
    ),
    (
        "DPCCDensity",
        {"pred2gt": [[0]] * 3},
        r"^pred2gt\[0\] must be a torch.Tensor of whole numbers \(B, N\), got list$",
    ),
    (
        "DPCCPointsNumber",
        {"pred_unums": [1, 2, 3]},
        r"^pred_unums\[0\] must be a torch.Tensor of shape \(B, N\), got int$",
    ),
    (
        "DPCCLatent",
        {"pred_latent_xyzs": torch.rand(2, 4, 3)},
        r"^latent_xyzs and .* same shape and 2 clouds, got \(2, 3, 3\) and \(2, 4, 3\) \(as \(B, N, 3\)\)$",
    ),
    (
        "DPCCLatent",
        {"pred_latent_xyzs": torch.rand(1, 3, 3), "latent_xyzs": torch.rand(1, 3, 3)},
        r"same shape and 2 clouds, got \(1, 3, 3\) and \(1, 3, 3\)",
    ),
    (
        "DPCCLatent",
        {"pred_latent_xyzs": torch.full((2, 3, 3), torch.inf)},
        r"^latent: NaN or Inf; .* \(DPCCLatent needs",
    ),
    ("DPCCNormal", {"features": torch.full((2, 11, 3), torch.nan)}, r"^normal: NaN or Inf; .* \(DPCCNormal needs"),
    (
        "DPCCNormal",
        {"gt_normals": torch.rand(2, 11, 3)},
        r"^gt_normals must hold 3 .* of gt_xyzs\[0\], \(2, 12, 3\) as \(B, N, 3\), got \(2, 11, 3\)$",
    ),
    (
        "DPCCNormal",
        {"features": torch.rand(2, 11, 8)},
        r"^features must hold 3 .* of pred_xyzs\[2\], \(2, 11, 3\) as \(B, N, 3\), got \(2, 11, 8\)$",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), CHANGES)
def test_bad_outputs(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises((LossArgumentError, LossValueError), match=message):
        build_loss(name)({**outputs(**SMALL), **change})


def test_clouds_in_the_other_layout_raise_an_error() -> None:
    given = outputs(**SMALL)
    with pytest.raises(LossValueError, match="use layout='B3N' if"):
        build_loss("DPCC")(turned(given))
    with pytest.raises(LossValueError, match="use layout='BN3' if"):
        build_loss({"NAME": "DPCC", "layout": "B3N"})(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chamfer_coe": -1}, "chamfer_coe=-1"),
        ({"density_coe": "much"}, "density_coe='much'"),
        ({"bpp_lambda": float("inf")}, "bpp_lambda=inf"),
        ({"layout": "channels_first"}, "must be one of 'BN3', 'B3N'"),
        ({"check_finite": 1}, "check_finite=1"),
        ({"chamfer_coef": 1}, "did you mean 'chamfer_coe'"),
        ({"distortion": "AMPL"}, "did you mean 'APML'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((LossArgumentError, LossValueError, LookupError), match=message):
        build_loss({"NAME": "DPCC", **arguments})


def test_terms_that_are_not_wanted_need_nothing() -> None:
    given = outputs(**SMALL)
    bare = {name: given[name] for name in ("gt_xyzs", "pred_xyzs")}
    loss = build_loss({"NAME": "DPCC", "density_coe": 0, "pts_num_coe": 0, "bpp_lambda": 0})
    assert list(loss.terms(bare)) == ["distortion"]
    assert loss(bare) == build_loss("DPCCDistortion")(given)
    numbers = {name: given[name] for name in ("gt_xyzs", "pred_unums")}
    assert build_loss("DPCCPointsNumber")(numbers) == build_loss("DPCCPointsNumber")(given)


def test_empty_clouds_give_numbers() -> None:
    given = outputs(sizes=(4, 2), latent=1, given=(0, 3))
    value = build_loss("DPCC")(given)
    assert torch.isfinite(value)
    nothing_kept = outputs(sizes=(4, 0), latent=0, given=(2, 3))
    assert build_loss("DPCCDensity")(nothing_kept) == 0
    given = outputs(batch=0, **SMALL)
    given["likelihoods"] = torch.ones(0, 8, 3)
    assert build_loss({"NAME": "DPCC", "bpp_lambda": 0})(given) == 0


def test_inside_torch_compile_and_autocast() -> None:
    given = outputs(**SMALL, dtype=torch.float32)
    loss = build_loss("DPCC")
    assert torch.compile(lambda outputs: loss(outputs), backend="eager")(given) == loss(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(given).dtype == torch.float32
