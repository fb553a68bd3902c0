// The plan differentiated: Sinkhorn backwards in logarithms of the scalings, then the softmins and their temperature.
//
// With a = S c, r' = r / (r a + eps), b = S^T r', c' = c / (c b + eps), and rho, gamma the derivatives by log r, log c:
//   b_bar = -gamma' c';  gamma = gamma' eps / (c b + eps);  rho' += r' (S b_bar);      S_bar_ij += r'_i b_bar_j
//   a_bar = -rho' r';    rho = rho' eps / (r a + eps);      gamma += c (S^T a_bar);    S_bar_ij += a_bar_i c_j
// Rows and columns keep their own copy of S_bar, so nothing is scattered.
#include "entries.cuh"
#include "launchers.h"

namespace apml::cuda {
namespace {

template <typename T, typename V, int G>
__global__ void start_kernel(Adjoint<T> adjoint) {
  const Plan<T, double>& plan = adjoint.plan;
  APML_EACH_CLOUD(c, plan.tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    double loss = 0.0;
    row.each(plan, [&](int64_t e, int64_t partner) {
      const double bar = plan.scale[row.slot] * row.cost(plan, partner) * plan.scale[partner];
      adjoint.values_bar[e] = bar;
      loss += plan.values[e] * bar;
    });
    loss = group_sum<G>(loss);
    if (row.slot >= 0 && row.leads()) adjoint.log_bar[row.slot] = loss + (plan.force ? plan.force[4 * row.slot] : 0.0);
  }
}

// b_bar, and gamma as far as it comes from c' alone.
template <typename T>
__global__ void columns_kernel(Adjoint<T> adjoint, const double* before, const double* after) {
  APML_EACH_CLOUD(c, adjoint.plan.tree.layout, Side::GT) {
    const Cloud own = adjoint.plan.tree.layout.cloud(c);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= own.length) continue;
    const int64_t slot = own.base + i;
    adjoint.product_bar[slot] = -adjoint.log_bar[slot] * after[slot];
    adjoint.log_bar[slot] *= adjoint.plan.eps * after[slot] / before[slot];
  }
}

// Sums of b_bar or a_bar over a cloud, bare and by spread, for the rank-one part.
template <typename T>
__global__ void product_sums_kernel(Adjoint<T> adjoint, Side side) {
  const Plan<T, double>& plan = adjoint.plan;
  APML_EACH_CLOUD(c, plan.tree.layout, side) {
    const Cloud own = plan.tree.layout.cloud(c);
    double bare = 0.0, spread = 0.0;
    for (int i = threadIdx.x; i < own.length; i += blockDim.x) {
      bare += adjoint.product_bar[own.base + i];
      spread += plan.spread[own.base + i] * adjoint.product_bar[own.base + i];
    }
    bare = block_sum(bare);
    spread = block_sum(spread);
    if (threadIdx.x == 0) {
      plan.sums[2 * c] = bare;
      plan.sums[2 * c + 1] = spread;
    }
  }
}

// Rows: rho' gains r' (S b_bar), a_bar and rho follow. Columns: gamma gains c (S^T a_bar).
template <typename T, typename V, int G>
__global__ void step_kernel(Adjoint<T> adjoint, Side side, const double* before, const double* after) {
  const Plan<T, double>& plan = adjoint.plan;
  APML_EACH_CLOUD(c, plan.tree.layout, side) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    double product = 0.0;
    const double log_bar = row.slot >= 0 ? adjoint.log_bar[row.slot] : 0.0;  // before the lanes meet: the first writes
    row.each(plan, [&](int64_t e, int64_t partner) { product += plan.values[e] * adjoint.product_bar[partner]; });
    product = group_sum<G>(product);
    if (row.slot < 0) continue;
    if (plan.spread) {
      const double* sums = plan.sums + 2 * plan.tree.layout.other(c);
      product += plan.spread[row.slot] * sums[0] + sums[1];
    }
    if (row.own.is_pred) {
      const double scale = after[row.slot], total = log_bar + scale * product;
      const double row_bar = -total * scale;
      row.each(plan, [&](int64_t e, int64_t partner) {
        adjoint.values_bar[e] += scale * adjoint.product_bar[partner] + row_bar * before[partner];
      });
      if (!row.leads()) continue;
      adjoint.product_bar[row.slot] = row_bar;
      adjoint.log_bar[row.slot] = total * plan.eps * scale / before[row.slot];
    } else {
      const double scale = before[row.slot], column_bar = adjoint.product_bar[row.slot];
      row.each(plan, [&](int64_t e, int64_t partner) {
        adjoint.values_bar[e] += after[partner] * column_bar + adjoint.product_bar[partner] * scale;
      });
      if (row.leads()) adjoint.log_bar[row.slot] = log_bar + scale * product;
    }
  }
}

// Of each point's own softmin: the weighted sum of derivatives, and the derivative by its gap. Where the ball ends
// before the second nearest, the softmin is 1 at the nearest whatever the gap, so no entry is missing here.
template <typename T, typename V, int G>
__global__ void softmin_kernel(Adjoint<T> adjoint) {
  const Plan<T, double>& plan = adjoint.plan;
  APML_EACH_CLOUD(c, plan.tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    const Rule rule = row.slot >= 0 ? plan.rules[row.slot] : Rule{};
    double weight = 0.0, weighted = 0.0, mean = 0.0;
    row.each(plan, [&](int64_t e, int64_t partner) {
      const double cost = row.cost(plan, partner), share = softmin(rule, cost), above = cost - rule.nearest;
      if (share == 0.0) return;
      const double bar = 0.5 * adjoint.values_bar[e] * share;
      weight += bar;
      weighted += bar * above;
      mean += share * above;
    });
    weight = group_sum<G>(weight);
    weighted = group_sum<G>(weighted);
    mean = group_sum<G>(mean);
    if (row.slot < 0 || !row.leads()) continue;
    const double temperature_bar = weight * mean - weighted;
    adjoint.weight[row.slot] = weight;
    adjoint.gap_bar[row.slot] = -temperature_bar * rule.inverse / (adjoint.gap[row.slot] + MARGIN);
  }
}

// The derivative by the cost of one entry, from one of its two softmins.
template <typename T>
__device__ double cost_bar(const Adjoint<T>& adjoint, int64_t slot, int chosen, double cost, double value_bar) {
  const Rule rule = adjoint.plan.rules[slot];
  const double share = softmin(rule, cost);
  double bar = share == 0.0 ? 0.0 : -rule.inverse * share * (0.5 * value_bar - adjoint.weight[slot]);
  const Nearest nearest = adjoint.nearest[slot];
  if (chosen == nearest.second) bar += adjoint.gap_bar[slot];
  if (chosen == nearest.first) bar -= adjoint.gap_bar[slot];
  return bar;
}

template <typename T, typename V, int G>
__global__ void gradient_kernel(Adjoint<T> adjoint, T* pred_grad, T* gt_grad) {
  const Plan<T, double>& plan = adjoint.plan;
  const Tree<T>& tree = plan.tree;
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    double force[3] = {0.0, 0.0, 0.0};
    row.each(plan, [&](int64_t e, int64_t partner) {
      const double cost = row.cost(plan, partner);
      if (!(cost > 0.0)) return;
      double bar = plan.scale[row.slot] * plan.values[e] * plan.scale[partner];
      bar += cost_bar(adjoint, row.slot, static_cast<int>(partner - row.other.base), cost, adjoint.values_bar[e]);
      bar += cost_bar(adjoint, partner, static_cast<int>(row.slot - row.own.base), cost, adjoint.values_bar[e]);
      for (int d = 0; d < 3; ++d)
        force[d] += bar / cost * (static_cast<double>(tree.points[row.slot].at[d]) -
                                  static_cast<double>(tree.points[partner].at[d]));
    });
    for (int d = 0; d < 3; ++d) force[d] = group_sum<G>(force[d]);
    if (row.slot < 0 || !row.leads()) continue;
    if (plan.force)
      for (int d = 0; d < 3; ++d) force[d] += plan.force[4 * row.slot + d + 1];
    if (!(plan.rules[row.slot].nearest < INFINITE))
      for (int d = 0; d < 3; ++d) force[d] = NOT_A_NUMBER;
    write_row(tree, row.own, row.slot, force, row.own.is_pred ? pred_grad : gt_grad);
  }
}

template <typename T>
void product_sums(const Adjoint<T>& adjoint, Side side, Stream stream) {
  if (!adjoint.plan.spread) return;
  const dim3 grid(1, grid_of(adjoint.plan.tree.layout, side, 1).y, 1);
  APML_LAUNCH(product_sums_kernel<T>, grid, SUM_THREADS, stream, adjoint, side);
}

}  // namespace

template <typename T>
void adjoint_start(const Adjoint<T>& adjoint, bool long_rows, Stream stream) {
  APML_LAUNCH_ROWS(start_kernel, T, double, adjoint.plan.tree.layout, Side::BOTH, stream, adjoint);
}

template <typename T>
void adjoint_step(const Adjoint<T>& adjoint, const double* before, const double* after, bool long_rows,
                  Stream stream) {
  const Layout& layout = adjoint.plan.tree.layout;
  APML_LAUNCH(columns_kernel<T>, grid_of(layout, Side::GT, THREADS), THREADS, stream, adjoint, before, after);
  product_sums(adjoint, Side::GT, stream);
  APML_LAUNCH_ROWS(step_kernel, T, double, layout, Side::PRED, stream, adjoint, Side::PRED, before, after);
  product_sums(adjoint, Side::PRED, stream);
  APML_LAUNCH_ROWS(step_kernel, T, double, layout, Side::GT, stream, adjoint, Side::GT, before, after);
}

template <typename T>
void adjoint_finish(const Adjoint<T>& adjoint, T* pred_grad, T* gt_grad, bool long_rows, Stream stream) {
  const Layout& layout = adjoint.plan.tree.layout;
  APML_LAUNCH_ROWS(softmin_kernel, T, double, layout, Side::BOTH, stream, adjoint);
  APML_LAUNCH_ROWS(gradient_kernel, T, double, layout, Side::BOTH, stream, adjoint, pred_grad, gt_grad);
}

#define APML_INSTANTIATE(T)                                                                                \
  template void adjoint_start<T>(const Adjoint<T>&, bool, Stream);                                         \
  template void adjoint_step<T>(const Adjoint<T>&, const double*, const double*, bool, Stream);            \
  template void adjoint_finish<T>(const Adjoint<T>&, T*, T*, bool, Stream);
APML_INSTANTIATE(float)
APML_INSTANTIATE(double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
