// The support: entries (i, j) with j in the ball of i or i in the ball of j, and their similarities.
//
// Each side sweeps over the other and finds the same entries, since the test is symmetric: rows and columns of the
// plan without a sort or a transposition. The test runs in the clouds' dtype on widened radii; the few entries too
// many have similarity 0.
#include "entries.cuh"
#include "launchers.h"
#include "visit.cuh"

namespace apml::cuda {
namespace {

// Counts the entries of each slot (partner null), or writes their partners.
template <typename T, bool FILL>
__global__ void support_kernel(Tree<T> tree, int* counts, const int64_t* offsets, int* partner) {
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;
    const Point<T> query = tree.points[own.base + i];
    const Box box = tree.clusters[own.box + i / CLUSTER], mine = point_box(tree.frames[own.pair], query);
    const bool valid = i < own.length;
    const float own_limit = widened(query.at[3]);
    const auto wants = [&](const Box& there) {
      const float limit = fmaxf(own_limit, widened(static_cast<double>(there.reach) * there.reach));
      return valid && box_squared(mine, there) <= limit;
    };
    int64_t at = FILL ? offsets[own.base + i] : 0;
    visit_within(tree, other, box, box.reach, wants, [&](int cluster) {
      each_point(tree, other, cluster, [&](int slot, const Point<T>& point) {
        const T squared = search_squared(query, point);
        if (!(valid && (squared <= query.at[3] || squared <= point.at[3]))) return;
        if (FILL) partner[at] = slot;
        ++at;
      });
    });
    if (!FILL) counts[own.base + i] = static_cast<int>(at);
  }
}

// The total of each one-sided softmin over its own ball, and whether the ball left anything out.
template <typename T, typename V, int G>
__global__ void totals_kernel(Plan<T, V> plan) {
  APML_EACH_CLOUD(c, plan.tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    Rule rule = row.slot >= 0 ? plan.rules[row.slot] : Rule{};
    const bool open = row.slot >= 0 && rule.radius > 0.0;
    double total = 0.0, inside = 0.0;
    if (open)
      row.each(plan, [&](int64_t, int64_t partner) {
        const double cost = row.cost(plan, partner);
        if (!(cost < rule.radius)) return;
        total += unnormalised(rule, cost);
        inside += 1.0;
      });
    total = group_sum<G>(total);
    inside = group_sum<G>(inside);
    if (row.slot >= 0 && row.leads()) {
      if (open) plan.rules[row.slot].total = total;
      plan.share[row.slot] = open && inside < row.other.length ? 1.0 / total : 0.0;
    }
  }
}

template <typename T, typename V, int G>
__global__ void similarities_kernel(Plan<T, V> plan) {
  APML_EACH_CLOUD(c, plan.tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (row.slot < 0) continue;
    const Rule own = plan.rules[row.slot];
    row.each(plan, [&](int64_t e, int64_t partner) {
      const double cost = row.cost(plan, partner);
      plan.values[e] = static_cast<V>(0.5 * softmin(own, cost) + 0.5 * softmin(plan.rules[partner], cost));
    });
  }
}

}  // namespace

template <typename T>
void count_support(const Tree<T>& tree, int* counts, Stream stream) {
  const auto kernel = support_kernel<T, false>;
  APML_LAUNCH(kernel, grid_of(tree.layout, Side::BOTH, THREADS), THREADS, stream, tree, counts, nullptr, nullptr);
}

template <typename T>
void fill_support(const Tree<T>& tree, const int64_t* offsets, int* partner, Stream stream) {
  const auto kernel = support_kernel<T, true>;
  APML_LAUNCH(kernel, grid_of(tree.layout, Side::BOTH, THREADS), THREADS, stream, tree, nullptr, offsets, partner);
}

template <typename T, typename V>
void similarities(const Plan<T, V>& plan, bool long_rows, Stream stream) {
  APML_LAUNCH_ROWS(totals_kernel, T, V, plan.tree.layout, Side::BOTH, stream, plan);
  APML_LAUNCH_ROWS(similarities_kernel, T, V, plan.tree.layout, Side::BOTH, stream, plan);
}

#define APML_INSTANTIATE(T)                                                \
  template void count_support<T>(const Tree<T>&, int*, Stream);            \
  template void fill_support<T>(const Tree<T>&, const int64_t*, int*, Stream);
APML_INSTANTIATE(float)
APML_INSTANTIATE(double)
#undef APML_INSTANTIATE
template void similarities<float, float>(const Plan<float, float>&, bool, Stream);
template void similarities<float, double>(const Plan<float, double>&, bool, Stream);
template void similarities<double, double>(const Plan<double, double>&, bool, Stream);

}  // namespace apml::cuda
