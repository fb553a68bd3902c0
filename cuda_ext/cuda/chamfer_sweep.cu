// Chamfer from nearest neighbours: losses and gradients without scattering, so that sums keep their order.
#include "entries.cuh"
#include "launchers.h"

namespace apml::cuda {
namespace {

constexpr int G = 8;  // lanes a slot

__global__ void chosen_kernel(Layout layout, const int* nearest, int64_t* chosen) {
  APML_EACH_CLOUD(c, layout, Side::BOTH) {
    const Cloud own = layout.cloud(c), other = layout.cloud(layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= Layout::up(own.points, CLUSTER) * CLUSTER) continue;
    const int slot = nearest[own.base + i];
    chosen[own.base + i] = slot < 0 ? -1 : other.base + slot;
  }
}

// First place in sorted numbers (n,) that is not below `value`.
__device__ int64_t lower_bound(const int64_t* sorted, int64_t n, int64_t value) {
  int64_t low = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (sorted[low + half] < value) {
      low += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return low;
}

// What a pair's difference is multiplied by in the gradient, for a cloud of `points` choosing at this distance.
__device__ double pull(bool squared, double distance2, int points) {
  if (squared) return 2.0 / points;
  return distance2 > 0.0 ? 0.5 / (points * sqrt(distance2)) : 0.0;
}

template <typename T>
__global__ void chamfer_kernel(Tree<T> tree, const double* distance2, const int* nearest, const int64_t* chosen,
                               const int64_t* by, bool squared, double* slot_loss, T* pred_grad, T* gt_grad) {
  const Layout& layout = tree.layout;
  APML_EACH_CLOUD(c, layout, Side::BOTH) {
    const Cloud own = layout.cloud(c), other = layout.cloud(layout.other(c));
    const int64_t per_block = blockDim.x / G, i = blockIdx.x * per_block + threadIdx.x / G;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;  // whole warps: 4 slots to a warp, 32 to a cluster
    const int64_t slot = own.base + i;
    const int lane = threadIdx.x % G;
    const bool valid = i < own.length && other.length > 0;
    double force[3] = {0.0, 0.0, 0.0}, loss = 0.0;
    const auto add = [&](double weight, int64_t partner) {
      for (int d = 0; d < 3; ++d)
        force[d] += weight * (static_cast<double>(tree.points[slot].at[d]) -
                              static_cast<double>(tree.points[partner].at[d]));
    };

    // 1. Those who chose this slot, in the order of their own slots.
    if (valid && pred_grad) {
      const int64_t end = layout.slots();
      for (int64_t e = lower_bound(chosen, end, slot) + lane; e < end && chosen[e] == slot; e += G)
        add(pull(squared, distance2[by[e]], other.length), by[e]);
    }
    for (int d = 0; d < 3; ++d) force[d] = group_sum<G>(force[d]);
    if (!valid || lane != 0) continue;

    // 2. The one it chose itself.
    const double own2 = distance2[slot];
    loss = squared ? own2 / own.length : 0.5 * sqrt(own2) / own.length;
    if (nearest[slot] >= 0)
      add(pull(squared, own2, own.length), other.base + nearest[slot]);
    else
      for (int d = 0; d < 3; ++d) force[d] = own2;  // not finite in, not finite out
    slot_loss[slot] = loss;
    write_row(tree, own, slot, force, own.is_pred ? pred_grad : gt_grad);
  }
}

template <typename T>
__global__ void losses_kernel(Layout layout, const double* slot_loss, T* losses) {
  APML_EACH_CLOUD(c, layout, Side::PRED) {
    const Cloud pred = layout.cloud(c), gt = layout.cloud(layout.other(c));
    double there = 0.0, back = 0.0;
    if (pred.length > 0 && gt.length > 0) {
      for (int i = threadIdx.x; i < pred.length; i += blockDim.x) there += slot_loss[pred.base + i];
      for (int j = threadIdx.x; j < gt.length; j += blockDim.x) back += slot_loss[gt.base + j];
    }
    there = block_sum(there);
    back = block_sum(back);
    if (threadIdx.x == 0) losses[c] = static_cast<T>(there + back);
  }
}

template <typename T>
__global__ void write_nearest_kernel(Tree<T> tree, const double* distance2, const int* nearest, T* squared,
                                     int64_t* index) {
  APML_EACH_CLOUD(c, tree.layout, Side::PRED) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= own.length) continue;
    const int64_t at = own.pair * own.points + tree.origin[own.base + i];
    const int slot = nearest[own.base + i];
    squared[at] = static_cast<T>(distance2[own.base + i]);
    index[at] = slot < 0 ? -1 : tree.origin[other.base + slot];
  }
}

}  // namespace

void chosen_slots(const Layout& layout, const int* nearest, int64_t* chosen, Stream stream) {
  APML_LAUNCH(chosen_kernel, grid_of(layout, Side::BOTH, THREADS), THREADS, stream, layout, nearest, chosen);
}

template <typename T>
void chamfer_sweep(const Tree<T>& tree, const double* distance2, const int* nearest, const int64_t* chosen,
                   const int64_t* by, bool squared, double* slot_loss, T* pred_grad, T* gt_grad, Stream stream) {
  APML_LAUNCH(chamfer_kernel<T>, grid_of(tree.layout, Side::BOTH, THREADS / G), THREADS, stream, tree, distance2,
              nearest, chosen, by, squared, slot_loss, pred_grad, gt_grad);
}

template <typename T>
void chamfer_losses(const Layout& layout, const double* slot_loss, T* losses, Stream stream) {
  APML_LAUNCH(losses_kernel<T>, dim3(1, grid_of(layout, Side::PRED, 1).y, 1), SUM_THREADS, stream, layout, slot_loss,
              losses);
}

template <typename T>
void write_nearest(const Tree<T>& tree, const double* distance2, const int* nearest, T* squared, int64_t* index,
                   Stream stream) {
  APML_LAUNCH(write_nearest_kernel<T>, grid_of(tree.layout, Side::PRED, THREADS), THREADS, stream, tree, distance2,
              nearest, squared, index);
}

#define APML_INSTANTIATE(T)                                                                                       \
  template void chamfer_sweep<T>(const Tree<T>&, const double*, const int*, const int64_t*, const int64_t*, bool, \
                                 double*, T*, T*, Stream);                                                        \
  template void chamfer_losses<T>(const Layout&, const double*, T*, Stream);                                      \
  template void write_nearest<T>(const Tree<T>&, const double*, const int*, T*, int64_t*, Stream);
APML_INSTANTIATE(float)
APML_INSTANTIATE(double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
