// The ops of namespace `apml`: what each takes, returns and promises. Every device implements exactly this.
//
// Clouds are (B, N, D) and (B, M, D), float32 or float64, contiguous, on one device, D = 1, 2 or 3. Lengths are
// int64 (B,) on the same device: points past them are padding, which is never read and gets gradient 0. A pair
// with an empty side gives loss 0 and gradient 0. Two runs give the same bits.
#pragma once

namespace apml::schema {

// Loss of each pair, unit of the coordinates, and its gradients: APML, arXiv 2509.08104.
//   losses (B,) in the clouds' dtype; pred_grad (B, N, D) and gt_grad (B, M, D), or (B, 0, D) each without
//   `gradients`; dropped (B,) float64: the mass that entries left out by `threshold` could carry at most.
// `differentiate_plan`: gradients also go through temperature, softmin and Sinkhorn.
constexpr const char* MATCH =
    "match(Tensor pred, Tensor gt, Tensor? pred_lengths, Tensor? gt_lengths, float p_min, float threshold, "
    "int iterations, float eps, bool uniform_ties, bool gradients, bool differentiate_plan) "
    "-> (Tensor losses, Tensor pred_grad, Tensor gt_grad, Tensor dropped)";

// The plan's own entries: indices (3, nnz) int64 (pair, pred point, gt point), sorted; values (nnz,) in the
// clouds' dtype; dropped (B,) float64. Tied rows and columns of the uniform rule are not among the entries:
// row_spread (B, N) and column_spread (B, M), float64, hold r_i u_i and c_j v_j, row_scale r and column_scale c,
// so that the whole plan is  entries + row_spread_i column_scale_j + row_scale_i column_spread_j.
constexpr const char* PLAN =
    "plan(Tensor pred, Tensor gt, Tensor? pred_lengths, Tensor? gt_lengths, float p_min, float threshold, "
    "int iterations, float eps, bool uniform_ties) "
    "-> (Tensor indices, Tensor values, Tensor dropped, Tensor row_spread, Tensor column_spread, "
    "Tensor row_scale, Tensor column_scale)";

// The nearest of `points` for each of `queries`: squared Euclidean distance (B, N) in the clouds' dtype and index
// (B, N) int64; of equally near points the one of the lowest index. Padding and empty clouds: 0 and -1.
constexpr const char* NEAREST =
    "nearest(Tensor queries, Tensor points, Tensor? query_lengths, Tensor? point_lengths) "
    "-> (Tensor squared, Tensor index)";

// Chamfer distance of each pair with PoinTr's factors, and its gradients. Squared: mean squared distance to the
// nearest point, pred to gt plus gt to pred; else half the sum of the two mean distances, derivative 0 at 0.
//   losses (B,) in the clouds' dtype; gradients as in `match`.
constexpr const char* CHAMFER =
    "chamfer(Tensor pred, Tensor gt, Tensor? pred_lengths, Tensor? gt_lengths, bool squared, bool gradients) "
    "-> (Tensor losses, Tensor pred_grad, Tensor gt_grad)";

// A matching of partners that are near each other: two trees of random planes, matched part by part (BSP-OT, ACM TOG
// 44(6), 2025), then exchanges of partners between neighbours for as long as the sum of costs falls.
//   losses (B,) in the clouds' dtype: mean distance of partners, or, with `squares`, mean squared distance; gradients
//   with the partners held constant, as in `match`; pairs (B, max(N, M), 2) int64: (pred point, gt point), -1 for none.
// Each point of the larger cloud has one partner, and each of the n points of the smaller cloud has floor(m / n) or
// ceil(m / n) of them, m the larger number. With `injective` the larger cloud's surplus stays out instead.
// `restarts`: how many matchings are made and merged; `neighbours`: candidates of a swap in each cloud, at most 64;
// `passes`: rounds of swaps, at most. The trees follow from `seed` alone, on every device (common/bisection.h).
constexpr const char* FAST_EMD =
    "fast_emd(Tensor pred, Tensor gt, Tensor? pred_lengths, Tensor? gt_lengths, int seed, int restarts, "
    "int neighbours, int passes, bool squares, bool injective, bool gradients) "
    "-> (Tensor losses, Tensor pred_grad, Tensor gt_grad, Tensor pairs)";

// The one-to-one assignment of least total distance of x (n, D) and y (m, D), n <= m, float64, coordinates in [0, 1];
// on the CPU alone. Starts from columns (n,) int64, the y of each x or -1, prices (m,) float64 >= 0, and eps, which is
// infinity at first; ends after about `work` steps, and goes on where it ended when it is given what it returned.
//   columns, prices and eps; total: the sum of the distances; bound: no assignment has a smaller one; finished: whether
//   every x has its y and  total <= (1 + tolerance) bound,  with tolerance 0 to rounding.
constexpr const char* ASSIGN =
    "assign(Tensor x, Tensor y, Tensor columns, Tensor prices, float eps, float tolerance, int work) "
    "-> (Tensor columns, Tensor prices, float eps, float total, float bound, bool finished)";

}  // namespace apml::schema
