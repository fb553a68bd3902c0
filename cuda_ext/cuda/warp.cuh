// Launching, and what the threads of a warp or a block do together. No float atomics; every sum in a fixed order.
//
// The test build defines APML_EMULATED and brings its own versions of CUDA's words (tests/emulated).
#pragma once

#ifndef APML_EMULATED
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define APML_SHARED(type, name, count) __shared__ type name[count]
#define APML_LAUNCH(kernel, grid, block, stream, ...)                                                   \
  do {                                                                                                  \
    kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__);                          \
    const cudaError_t error = cudaGetLastError();                                                       \
    if (error != cudaSuccess)                                                                           \
      throw std::runtime_error(std::string("apml: launching " #kernel ": ") + cudaGetErrorString(error)); \
  } while (false)
#endif

#include "layout.h"

#ifndef APML_MAX_GRID_Y  // the test build has fewer, so that clouds are taken in turns
#define APML_MAX_GRID_Y 65535
#endif

namespace apml::cuda {

constexpr int THREADS = 128;
constexpr int SUM_THREADS = 256;  // where a block adds up a cloud
constexpr unsigned ALL = 0xffffffffu;
constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();

// One row of blocks a cloud, `slots` of it to a block; more clouds than rows are taken in turns (APML_EACH_CLOUD).
inline dim3 grid_of(const Layout& layout, Side side, int slots) {
  const int64_t clouds = layout.last(side) - layout.first(side);
  const int64_t across = (layout.most_slots(side) + slots - 1) / slots;
  return dim3(static_cast<unsigned>(across > 0 ? across : 1),
              static_cast<unsigned>(clouds < APML_MAX_GRID_Y ? clouds : APML_MAX_GRID_Y), 1);
}

// The loop over the clouds that fall to this row of blocks. Uniform over a block, so its body may synchronise.
#define APML_EACH_CLOUD(c, layout, side)                                                              \
  for (int64_t c = (layout).first(side) + blockIdx.y, last_ = (layout).last(side); c < last_; c += gridDim.y)

__device__ inline unsigned warp_min(unsigned v) {
#if defined(APML_EMULATED) || __CUDA_ARCH__ >= 800
  return __reduce_min_sync(ALL, v);
#else
  for (int step = 16; step > 0; step /= 2) v = min(v, __shfl_xor_sync(ALL, v, step));
  return v;
#endif
}

__device__ inline unsigned warp_max(unsigned v) { return ~warp_min(~v); }

// Largest over a warp of values >= 0 (NaN comes out as NaN).
__device__ inline float warp_max(float v) { return __uint_as_float(warp_max(__float_as_uint(v))); }

// Sum over groups of G neighbouring lanes, the same bits in each of them. All lanes of the warp must call it.
template <int G>
__device__ inline double group_sum(double v) {
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) v += __shfl_xor_sync(ALL, v, step);
  return v;
}

// Sum over the threads of a block, valid in thread 0. All threads must call it.
__device__ inline double block_sum(double v) {
  APML_SHARED(double, partial, 32);
  v = group_sum<32>(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  double total = 0.0;
  if (threadIdx.x == 0)
    for (unsigned w = 0; w < blockDim.x / 32; ++w) total += partial[w];
  return total;
}

}  // namespace apml::cuda
