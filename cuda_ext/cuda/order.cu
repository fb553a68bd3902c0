// Sorting clouds along a Morton curve: bounds, keys, and, once sorted, clusters with their boxes.
#include "launchers.h"
#include "visit.cuh"

namespace apml::cuda {
namespace {

template <typename T>
__device__ void load(const Layout& layout, const Cloud& own, const T* pred, const T* gt, int i, T (&x)[3]) {
  const T* from = (own.is_pred ? pred : gt) + (own.pair * own.points + i) * layout.dims;
  for (int k = 0; k < 3; ++k) x[k] = k < layout.dims ? from[k] : T(0);
}

// NaN never wins a comparison, so it leaves the bounds alone.
__device__ void widen(Bounds& bounds, int k, double low, double high) {
  if (low < bounds.low[k]) bounds.low[k] = low;
  if (high > bounds.high[k]) bounds.high[k] = high;
}

__device__ Bounds no_bounds() {
  return {{INFINITE, INFINITE, INFINITE}, {-INFINITE, -INFINITE, -INFINITE}};
}

__device__ void warp_bounds(Bounds& bounds) {
  for (int k = 0; k < 3; ++k)
    for (int step = 16; step > 0; step /= 2)
      widen(bounds, k, __shfl_xor_sync(ALL, bounds.low[k], step), __shfl_xor_sync(ALL, bounds.high[k], step));
}

// 1. Bounds of both clouds of a pair together, one part per warp.
template <typename T>
__global__ void bounds_kernel(Layout layout, const T* pred, const T* gt, Bounds* parts) {
  const int warps = gridDim.x * (blockDim.x / 32), thread = blockIdx.x * blockDim.x + threadIdx.x;
  APML_EACH_CLOUD(c, layout, Side::PRED) {
    Bounds bounds = no_bounds();
    for (int side = 0; side < 2; ++side) {
      const Cloud own = layout.cloud(side == 0 ? c : layout.other(c));
      for (int64_t i = thread; i < own.length; i += gridDim.x * blockDim.x) {
        T x[3];
        load(layout, own, pred, gt, static_cast<int>(i), x);
        for (int k = 0; k < 3; ++k) widen(bounds, k, x[k], x[k]);
      }
    }
    warp_bounds(bounds);
    if (threadIdx.x % 32 == 0) parts[c * warps + thread / 32] = bounds;
  }
}

// 2. The frame of each pair, from its parts: a warp a pair.
__global__ void frames_kernel(Layout layout, const Bounds* parts, int count, int bits, Frame* frames) {
  APML_EACH_CLOUD(c, layout, Side::PRED) {
    Bounds bounds = no_bounds();
    for (int i = threadIdx.x; i < count; i += 32)
      for (int k = 0; k < 3; ++k) widen(bounds, k, parts[c * count + i].low[k], parts[c * count + i].high[k]);
    warp_bounds(bounds);
    double extent = 0.0;
    for (int k = 0; k < 3; ++k) extent = fmax(extent, bounds.high[k] - bounds.low[k]);
    Frame frame;
    for (int k = 0; k < 3; ++k) frame.low[k] = bounds.low[k] < INFINITE ? bounds.low[k] : 0.0;
    frame.cells = extent > 0.0 && extent < INFINITE ? ldexp(1.0, bits) / extent : 0.0;
    if (threadIdx.x == 0) frames[c] = frame;
  }
}

// Puts two zero bits before each of the low 21 bits.
__device__ uint64_t apart(uint64_t v) {
  v = (v | v << 32) & 0x001f00000000ffffull;
  v = (v | v << 16) & 0x001f0000ff0000ffull;
  v = (v | v << 8) & 0x100f00f00f00f00full;
  v = (v | v << 4) & 0x10c30c30c30c30c3ull;
  return (v | v << 2) & 0x1249249249249249ull;
}

// 3. Keys by which all clouds sort at once: the cloud, padding last, the place on the curve.
template <typename T>
__global__ void keys_kernel(Layout layout, const T* pred, const T* gt, const Frame* frames, int bits, int64_t* keys) {
  const double most = ldexp(1.0, bits) - 1.0;
  APML_EACH_CLOUD(c, layout, Side::BOTH) {
    const Cloud own = layout.cloud(c);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= Layout::up(own.points, CLUSTER) * CLUSTER) continue;
    uint64_t place = uint64_t{1} << (3 * bits);
    if (i < own.length) {
      T x[3];
      load(layout, own, pred, gt, static_cast<int>(i), x);
      const Frame frame = frames[own.pair];
      place = 0;
      for (int k = 0; k < 3; ++k) {
        const double cell = (static_cast<double>(x[k]) - frame.low[k]) * frame.cells;
        place |= apart(cell > 0.0 ? static_cast<uint64_t>(fmin(cell, most)) : 0) << k;  // NaN: cell 0
      }
    }
    keys[own.base + i] = static_cast<int64_t>(static_cast<uint64_t>(c) << (3 * bits + 1) | place);
  }
}

__device__ Box warp_box(float (&low)[3], float (&high)[3]) {
  Box box;
  for (int k = 0; k < 3; ++k) {
    for (int step = 16; step > 0; step /= 2) {
      low[k] = fminf(low[k], __shfl_xor_sync(ALL, low[k], step));
      high[k] = fmaxf(high[k], __shfl_xor_sync(ALL, high[k], step));
    }
    box.low[k] = low[k];
    box.high[k] = high[k];
  }
  box.reach = 0.0f;
  box.tied = 0.0f;
  return box;
}

// 4. Points in order and the boxes of clusters: a warp a cluster.
template <typename T>
__global__ void gather_kernel(Tree<T> tree, const T* pred, const T* gt, const int64_t* order) {
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Cloud own = tree.layout.cloud(c);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i - threadIdx.x % 32 >= Layout::up(own.points, CLUSTER) * CLUSTER) continue;
    const float none = static_cast<float>(INFINITE);
    float low[3] = {none, none, none}, high[3] = {-none, -none, -none};
    Point<T> point = {{none, none, none, T(0)}};
    int origin = -1;
    if (i < own.length) {
      T x[3];
      origin = static_cast<int>(order[own.base + i] - own.base);
      load(tree.layout, own, pred, gt, origin, x);
      for (int k = 0; k < 3; ++k) point.at[k] = x[k];
      const Box box = point_box(tree.frames[own.pair], point);
      for (int k = 0; k < 3; ++k) low[k] = box.low[k], high[k] = box.high[k];
    }
    tree.points[own.base + i] = point;
    tree.origin[own.base + i] = origin;
    const Box box = warp_box(low, high);
    if (threadIdx.x % 32 == 0) tree.clusters[own.box + i / CLUSTER] = box;
  }
}

// 5. Boxes of blocks: a warp a block.
__global__ void blocks_kernel(Layout layout, const Box* clusters, Box* blocks) {
  APML_EACH_CLOUD(c, layout, Side::BOTH) {
    const Cloud own = layout.cloud(c);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;  // cluster
    if (i / 32 >= Layout::up(own.points, BLOCK)) continue;
    const float none = static_cast<float>(INFINITE);
    float low[3] = {none, none, none}, high[3] = {-none, -none, -none};
    if (i < own.clusters()) {
      const Box& box = clusters[own.box + i];
      for (int k = 0; k < 3; ++k) low[k] = box.low[k], high[k] = box.high[k];
    }
    const Box box = warp_box(low, high);
    if (threadIdx.x % 32 == 0) blocks[own.block + i / 32] = box;
  }
}

}  // namespace

template <typename T>
void order_keys(const Layout& layout, const T* pred, const T* gt, Bounds* parts, Frame* frames, int bits,
                int64_t* keys, Stream stream) {
  dim3 grid = grid_of(layout, Side::PRED, THREADS);
  grid.x = BOUNDS_PARTS / (THREADS / 32);
  APML_LAUNCH(bounds_kernel<T>, grid, THREADS, stream, layout, pred, gt, parts);
  APML_LAUNCH(frames_kernel, dim3(1, grid.y, 1), 32, stream, layout, parts, BOUNDS_PARTS, bits, frames);
  APML_LAUNCH(keys_kernel<T>, grid_of(layout, Side::BOTH, THREADS), THREADS, stream, layout, pred, gt, frames, bits,
              keys);
}

template <typename T>
void gather(const Tree<T>& tree, const T* pred, const T* gt, const int64_t* order, Stream stream) {
  APML_LAUNCH(gather_kernel<T>, grid_of(tree.layout, Side::BOTH, THREADS), THREADS, stream, tree, pred, gt, order);
  APML_LAUNCH(blocks_kernel, grid_of(tree.layout, Side::BOTH, THREADS * CLUSTER), THREADS, stream, tree.layout,
              tree.clusters, tree.blocks);
}

#define APML_INSTANTIATE(T)                                                                                  \
  template void order_keys<T>(const Layout&, const T*, const T*, Bounds*, Frame*, int, int64_t*, Stream); \
  template void gather<T>(const Tree<T>&, const T*, const T*, const int64_t*, Stream);
APML_INSTANTIATE(float)
APML_INSTANTIATE(double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
