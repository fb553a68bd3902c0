// From scaled entries to what the ops return: losses, gradients, the dropped mass, the plan itself.
#include "entries.cuh"
#include "launchers.h"

namespace apml::cuda {
namespace {

// The rank-one part: pairs of which one point is tied, r_i (u_i + v_j) c_j each, streamed without memory.
template <typename T, typename V>
__global__ void uniform_sweep_kernel(Plan<T, V> plan) {
  const Tree<T>& tree = plan.tree;
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;
    const int64_t slot = own.base + i;
    const bool valid = i < own.length, all = tree.clusters[own.box + i / CLUSTER].tied > 0.0f;
    const Point<T> query = tree.points[slot];
    const double scale = plan.full_scale(slot), spread = plan.spread[slot];
    double force[4] = {0.0, 0.0, 0.0, 0.0};
    for (int first = 0; first < other.clusters(); first += 32) {
      const int mine = first + threadIdx.x % 32;
      const bool hit = mine < other.clusters() && (all || tree.clusters[other.box + mine].tied > 0.0f);
      for (unsigned left = __ballot_sync(ALL, hit); left; left &= left - 1) {
        each_point(tree, other, first + __ffs(static_cast<int>(left)) - 1, [&](int k, const Point<T>& point) {
          const double both = spread + plan.spread[other.base + k];
          if (!valid || both == 0.0) return;
          const double p = scale * both * plan.full_scale(other.base + k);
          const double cost = sqrt(exact_squared(query, point));
          const double weight = cost > 0.0 ? p / cost : 0.0;
          force[0] += p * cost;
          for (int d = 0; d < 3; ++d)
            force[d + 1] += weight * (static_cast<double>(query.at[d]) - static_cast<double>(point.at[d]));
        });
      }
    }
    for (int d = 0; d < 4; ++d) plan.force[4 * slot + d] = force[d];
  }
}

template <typename T, typename V, int G>
__global__ void sweep_kernel(Plan<T, V> plan, Side side, double* slot_loss, T* pred_grad, T* gt_grad) {
  const Tree<T>& tree = plan.tree;
  APML_EACH_CLOUD(c, tree.layout, side) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    double loss = 0.0, force[3] = {0.0, 0.0, 0.0};
    if (row.slot >= 0) {
      const Point<T> query = tree.points[row.slot];
      const double scale = plan.scale[row.slot];
      row.each(plan, [&](int64_t e, int64_t partner) {
        const Point<T> point = tree.points[partner];
        const double p = scale * plan.values[e] * plan.scale[partner], cost = sqrt(exact_squared(query, point));
        const double weight = cost > 0.0 ? p / cost : 0.0;
        loss += p * cost;
        for (int d = 0; d < 3; ++d)
          force[d] += weight * (static_cast<double>(query.at[d]) - static_cast<double>(point.at[d]));
      });
    }
    loss = group_sum<G>(loss);
    for (int d = 0; d < 3; ++d) force[d] = group_sum<G>(force[d]);
    if (row.slot < 0 || !row.leads()) continue;
    if (plan.force) {
      loss += plan.force[4 * row.slot];
      for (int d = 0; d < 3; ++d) force[d] += plan.force[4 * row.slot + d + 1];
    }
    if (!(plan.rules[row.slot].nearest < INFINITE)) {
      // Not finite in, not finite out, even where no entry carries it.
      loss = NOT_A_NUMBER;
      for (int d = 0; d < 3; ++d) force[d] = loss;
    }
    slot_loss[row.slot] = loss;
    write_row(tree, row.own, row.slot, force, row.own.is_pred ? pred_grad : gt_grad);
  }
}

template <typename T, typename V>
__global__ void reduce_kernel(Plan<T, V> plan, const double* slot_loss, T* losses, double* dropped,
                              double* sums) {
  APML_EACH_CLOUD(c, plan.tree.layout, Side::PRED) {
    const Cloud pred = plan.tree.layout.cloud(c), gt = plan.tree.layout.cloud(plan.tree.layout.other(c));
    double loss = 0.0, r = 0.0, r_dropped = 0.0, column = 0.0, column_dropped = 0.0;
    for (int i = threadIdx.x; i < pred.length; i += blockDim.x) {
      const double scale = plan.full_scale(pred.base + i);
      if (slot_loss) loss += slot_loss[pred.base + i];
      r += scale;
      r_dropped += scale * plan.share[pred.base + i] * plan.threshold[pred.base + i];
    }
    for (int j = threadIdx.x; j < gt.length; j += blockDim.x) {
      const double scale = plan.full_scale(gt.base + j);
      column += scale;
      column_dropped += scale * plan.share[gt.base + j] * plan.threshold[gt.base + j];
      // A gt point that is not finite may belong to no row.
      if (!(plan.rules[gt.base + j].nearest < INFINITE))
        loss = NOT_A_NUMBER;
    }
    loss = block_sum(loss);
    r = block_sum(r);
    r_dropped = block_sum(r_dropped);
    column = block_sum(column);
    column_dropped = block_sum(column_dropped);
    if (threadIdx.x != 0) continue;
    const bool empty = pred.length == 0 || gt.length == 0;
    const double bound = empty ? 0.0 : 0.5 * (r_dropped * column + r * column_dropped);
    if (losses) losses[c] = empty ? T(0) : static_cast<T>(loss);
    dropped[c] = bound >= 0.0 ? bound : INFINITE;  // NaN too
    sums[2 * c] = r;
    sums[2 * c + 1] = column;
  }
}

template <typename T, typename V>
__global__ void lower_kernel(Plan<T, V> plan, double share, const double* dropped, const double* sums, int* state) {
  const Tree<T>& tree = plan.tree;
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;
    const int64_t slot = own.base + i;
    const bool valid = i < own.length && other.length > 0;
    const double most = share * (own.is_pred ? other.length : own.length);  // the mass is one for each gt point
    const double now = plan.threshold[slot];
    double next = now;
    if (valid && dropped[own.pair] > most)
      next = next_threshold(now, most / own.length, plan.full_scale(slot), plan.share[slot],
                            sums[2 * own.pair + (own.is_pred ? 1 : 0)]);
    Rule& rule = plan.rules[slot];
    if (next < now) {
      plan.threshold[slot] = next;
      rule.radius = support_radius(rule.nearest, rule.inverse, -log(next));
    }
    write_reach(tree, own, i, rule.radius);
    const unsigned lowered = __ballot_sync(ALL, next < now);
    const float nats = warp_max(valid ? widened(-log(next)) : 0.0f);
    if (threadIdx.x % 32 != 0) continue;
    if (lowered) atomicMax(state, 1);
    atomicMax(state + 1, static_cast<int>(__float_as_uint(nats)));
  }
}

template <typename T, typename V, int G>
__global__ void write_plan_kernel(Plan<T, V> plan, int64_t* keys, T* values) {
  const Tree<T>& tree = plan.tree;
  APML_EACH_CLOUD(c, tree.layout, Side::PRED) {
    const Row row(plan, c, G);
    if (row.slot < 0) continue;
    const int64_t first = (c * row.own.points + tree.origin[row.slot]) * row.other.points;
    const double scale = plan.scale[row.slot];
    row.each(plan, [&](int64_t e, int64_t partner) {
      keys[e] = first + tree.origin[partner];
      values[e] = static_cast<T>(scale * plan.values[e] * plan.scale[partner]);
    });
  }
}

template <typename T, typename V>
__global__ void write_scales_kernel(Plan<T, V> plan, Side side, double* scale, double* spread) {
  APML_EACH_CLOUD(c, plan.tree.layout, side) {
    const Cloud own = plan.tree.layout.cloud(c);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= own.length) continue;
    const double full = plan.full_scale(own.base + i);
    const int64_t at = own.pair * own.points + plan.tree.origin[own.base + i];
    scale[at] = full;
    spread[at] = plan.spread ? full * plan.spread[own.base + i] : 0.0;
  }
}

}  // namespace

template <typename T, typename V>
void uniform_sweep(const Plan<T, V>& plan, Stream stream) {
  const auto kernel = uniform_sweep_kernel<T, V>;
  APML_LAUNCH(kernel, grid_of(plan.tree.layout, Side::BOTH, THREADS), THREADS, stream, plan);
}

template <typename T, typename V>
void sweep(const Plan<T, V>& plan, double* slot_loss, T* pred_grad, T* gt_grad, bool long_rows, Stream stream) {
  const Side side = pred_grad || gt_grad ? Side::BOTH : Side::PRED;
  APML_LAUNCH_ROWS(sweep_kernel, T, V, plan.tree.layout, side, stream, plan, side, slot_loss, pred_grad, gt_grad);
}

template <typename T, typename V>
void reduce_pairs(const Plan<T, V>& plan, const double* slot_loss, T* losses, double* dropped, double* sums,
                  Stream stream) {
  const auto kernel = reduce_kernel<T, V>;
  APML_LAUNCH(kernel, dim3(1, grid_of(plan.tree.layout, Side::PRED, 1).y, 1), SUM_THREADS, stream, plan, slot_loss,
              losses, dropped, sums);
}

template <typename T, typename V>
void lower_thresholds(const Plan<T, V>& plan, double share, const double* dropped, const double* sums, int* state,
                      Stream stream) {
  const auto kernel = lower_kernel<T, V>;
  APML_LAUNCH(kernel, grid_of(plan.tree.layout, Side::BOTH, THREADS), THREADS, stream, plan, share, dropped,
              sums, state);
}

template <typename T, typename V>
void write_plan(const Plan<T, V>& plan, int64_t* keys, T* values, Stream stream) {
  const bool long_rows = false;
  APML_LAUNCH_ROWS(write_plan_kernel, T, V, plan.tree.layout, Side::PRED, stream, plan, keys, values);
}

template <typename T, typename V>
void write_scales(const Plan<T, V>& plan, Side side, double* scale, double* spread, Stream stream) {
  const auto kernel = write_scales_kernel<T, V>;
  APML_LAUNCH(kernel, grid_of(plan.tree.layout, side, THREADS), THREADS, stream, plan, side, scale, spread);
}

#define APML_INSTANTIATE(T, V)                                                                          \
  template void uniform_sweep<T, V>(const Plan<T, V>&, Stream);                                         \
  template void sweep<T, V>(const Plan<T, V>&, double*, T*, T*, bool, Stream);                          \
  template void reduce_pairs<T, V>(const Plan<T, V>&, const double*, T*, double*, double*, Stream);     \
  template void lower_thresholds<T, V>(const Plan<T, V>&, double, const double*, const double*, int*, Stream); \
  template void write_plan<T, V>(const Plan<T, V>&, int64_t*, T*, Stream);                              \
  template void write_scales<T, V>(const Plan<T, V>&, Side, double*, double*, Stream);
APML_INSTANTIATE(float, float)
APML_INSTANTIATE(float, double)
APML_INSTANTIATE(double, double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
