// Sinkhorn in scaling form: each half step is one product with S, from the side whose scale it renews.
#include "entries.cuh"
#include "launchers.h"

namespace apml::cuda {
namespace {

// What the rank-one part of the uniform rule needs of each cloud: sums of its scale, bare and by spread.
template <typename T, typename V>
__global__ void cloud_sums_kernel(Plan<T, V> plan, Side side) {
  APML_EACH_CLOUD(c, plan.tree.layout, side) {
    const Cloud own = plan.tree.layout.cloud(c);
    double bare = 0.0, spread = 0.0;
    for (int i = threadIdx.x; i < own.length; i += blockDim.x) {
      const double scale = plan.full_scale(own.base + i);
      bare += scale;
      spread += plan.spread[own.base + i] * scale;
    }
    bare = block_sum(bare);
    spread = block_sum(spread);
    if (threadIdx.x == 0) {
      plan.sums[2 * c] = bare;
      plan.sums[2 * c + 1] = spread;
    }
  }
}

template <typename T, typename V, int G>
__global__ void half_step_kernel(Plan<T, V> plan, Side side) {
  APML_EACH_CLOUD(c, plan.tree.layout, side) {
    const Row row(plan, c, G);
    if (!row.warp_has_slots()) continue;
    double product = 0.0;
    row.each(plan, [&](int64_t e, int64_t partner) { product += plan.values[e] * plan.scale[partner]; });
    product = group_sum<G>(product);
    if (row.slot < 0 || !row.leads()) continue;
    if (plan.spread) {
      const double* sums = plan.sums + 2 * plan.tree.layout.other(c);
      const double before = plan.absorbed ? plan.absorbed[row.slot] : 1.0;
      product += before * (plan.spread[row.slot] * sums[0] + sums[1]);
    }
    const double scale = plan.scale[row.slot];
    plan.scale[row.slot] = scale / (scale * product + plan.eps);
  }
}

template <typename T, typename V, int G>
__global__ void absorb_values_kernel(Plan<T, V> plan) {
  APML_EACH_CLOUD(c, plan.tree.layout, Side::BOTH) {
    const Row row(plan, c, G);
    if (row.slot < 0) continue;
    const double scale = plan.scale[row.slot];
    row.each(plan, [&](int64_t e, int64_t partner) {
      plan.values[e] = static_cast<V>(scale * plan.values[e] * plan.scale[partner]);
    });
  }
}

// Moves the scale of a pair over to what was absorbed. r and 1 / c drift together; only their product counts, and where
// the sums of the uniform part need them apart they are brought back to a common level.
template <typename T, typename V>
__global__ void absorb_scale_kernel(Plan<T, V> plan) {
  APML_SHARED(double, widest, SUM_THREADS);
  APML_EACH_CLOUD(c, plan.tree.layout, Side::PRED) {
    const Cloud pred = plan.tree.layout.cloud(c), gt = plan.tree.layout.cloud(plan.tree.layout.other(c));
    double most = 0.0;
    for (int i = threadIdx.x; i < pred.length; i += blockDim.x)
      most = fmax(most, plan.full_scale(pred.base + i));
    __syncthreads();
    widest[threadIdx.x] = most;
    __syncthreads();
    for (unsigned t = 0; t < blockDim.x; ++t) most = fmax(most, widest[t]);
    const double level = plan.spread && most > 0.0 ? most : 1.0;
    for (int side = 0; side < 2; ++side) {
      const Cloud& own = side == 0 ? pred : gt;
      for (int i = threadIdx.x; i < own.length; i += blockDim.x) {
        const double full = plan.full_scale(own.base + i);
        plan.absorbed[own.base + i] = side == 0 ? full / level : full * level;
        plan.scale[own.base + i] = 1.0;
      }
    }
  }
}

__global__ void copy_kernel(double* to, const double* from, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = from[i];
}

}  // namespace

void copy_doubles(double* to, const double* from, int64_t count, Stream stream) {
  APML_LAUNCH(copy_kernel, dim3(static_cast<unsigned>(Layout::up(count, THREADS)), 1, 1), THREADS, stream, to, from,
              count);
}

template <typename T, typename V>
void half_step(const Plan<T, V>& plan, Side side, bool long_rows, Stream stream) {
  const Layout& layout = plan.tree.layout;
  if (plan.spread) {
    const auto kernel = cloud_sums_kernel<T, V>;
    const Side opposite = side == Side::PRED ? Side::GT : Side::PRED;
    APML_LAUNCH(kernel, dim3(1, grid_of(layout, opposite, 1).y, 1), SUM_THREADS, stream, plan, opposite);
  }
  APML_LAUNCH_ROWS(half_step_kernel, T, V, layout, side, stream, plan, side);
}

template <typename T, typename V>
void absorb(const Plan<T, V>& plan, bool long_rows, Stream stream) {
  const Layout& layout = plan.tree.layout;
  APML_LAUNCH_ROWS(absorb_values_kernel, T, V, layout, Side::BOTH, stream, plan);
  const auto kernel = absorb_scale_kernel<T, V>;
  APML_LAUNCH(kernel, dim3(1, grid_of(layout, Side::PRED, 1).y, 1), SUM_THREADS, stream, plan);
}

#define APML_INSTANTIATE(T, V)                                              \
  template void half_step<T, V>(const Plan<T, V>&, Side, bool, Stream);     \
  template void absorb<T, V>(const Plan<T, V>&, bool, Stream);
APML_INSTANTIATE(float, float)
APML_INSTANTIATE(float, double)
APML_INSTANTIATE(double, double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
