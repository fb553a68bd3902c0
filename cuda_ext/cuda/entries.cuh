// A row of the plan (or a column: the same thing seen from the other cloud) and the group of lanes that works on it.
#pragma once

#include "visit.cuh"

namespace apml::cuda {

// A group of G lanes a row: 8 for the usual dozen of entries, a warp where rows are long. Needs `long_rows` in scope.
#define APML_LAUNCH_ROWS(kernel, T, V, layout, side, stream, ...)                                  \
  do {                                                                                             \
    const auto rows_ = long_rows ? kernel<T, V, 32> : kernel<T, V, 8>;                             \
    APML_LAUNCH(rows_, grid_of(layout, side, THREADS / (long_rows ? 32 : 8)), THREADS, stream, __VA_ARGS__); \
  } while (false)

struct Row {
  Cloud own, other;
  int64_t slot;         // -1 past the cloud's length: no entries
  int64_t begin, end;  // its entries
  int lane, lanes;

  template <typename T, typename V>
  __device__ Row(const Plan<T, V>& plan, int64_t c, int group)
      : own(plan.tree.layout.cloud(c)), other(plan.tree.layout.cloud(plan.tree.layout.other(c))) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / group) + threadIdx.x / group;
    lane = threadIdx.x % group;
    lanes = group;
    slot = i < own.length ? own.base + i : -1;
    begin = slot >= 0 ? plan.offsets[slot] : 0;
    end = slot >= 0 ? plan.offsets[slot + 1] : 0;
  }

  // Whether any row of this warp is there; the same answer in all its lanes.
  __device__ bool warp_has_slots() const {
    const int64_t per_block = blockDim.x / lanes;
    return blockIdx.x * per_block + threadIdx.x / 32 * (32 / lanes) < own.length;
  }
  __device__ bool leads() const { return lane == 0; }

  // Calls each(entry, slot of its partner), entries dealt out to the lanes of the group.
  template <typename T, typename V, typename Each>
  __device__ void each(const Plan<T, V>& plan, Each each) const {
#pragma unroll 4
    for (int64_t e = begin + lane; e < end; e += lanes) each(e, other.base + plan.partner[e]);
  }

  template <typename T, typename V>
  __device__ double cost(const Plan<T, V>& plan, int64_t partner) const {
    return sqrt(exact_squared(plan.tree.points[slot], plan.tree.points[partner]));
  }
};

// Writes a slot's row where its point was given; each row once. No gradient wanted: null.
template <typename T>
__device__ void write_row(const Tree<T>& tree, const Cloud& own, int64_t slot, const double (&force)[3], T* gradient) {
  if (!gradient) return;
  const int dims = tree.layout.dims;
  T* to = gradient + (own.pair * own.points + tree.origin[slot]) * dims;
  for (int d = 0; d < 3; ++d)
    if (d < dims) to[d] = static_cast<T>(force[d]);
}

// exp(-(d - nearest) T), 1 at the nearest.
__device__ inline double unnormalised(const Rule& rule, double cost) {
  return exp(-fmax(cost - rule.nearest, 0.0) * rule.inverse);
}

// The one-sided softmin at a cost, 0 outside its ball.
__device__ inline double softmin(const Rule& rule, double cost) {
  return cost < rule.radius ? unnormalised(rule, cost) / rule.total : 0.0;
}

}  // namespace apml::cuda
