// CUDA's words on the CPU, for tests: the kernels' own source runs with one fiber a thread, one block at a time.
//
// Every collective is a barrier over its warp or block. Lanes of a warp that meet in different collectives, or a lane
// that left while the others wait, end the launch with an error instead of hanging. Shared memory starts as NaN.
// APML_EMULATED_REVERSE=1 runs threads and blocks in the opposite order: results must not depend on it.
#pragma once

#include "emulated_threads.h"  // first: it sets up setjmp

#include <algorithm>
#include <cmath>
#include <limits>

#define __global__
#define __device__
#define __host__

namespace emulated {

// Gives `value` to the warp and returns all lanes' values once everyone is there.
template <typename V>
inline const uint64_t* share(V value, const char* kind) {
  static_assert(sizeof(V) <= sizeof(uint64_t));
  Warp& warp = warps[current / LANES];
  uint64_t* round = warp.values[warp.barrier.generation % 2];
  std::memcpy(&round[current % LANES], &value, sizeof(V));
  wait(warp.barrier, std::min(LANES, block_size.x - current / LANES * LANES), kind);
  return round;
}

template <typename V>
inline V value_of(uint64_t bits) {
  V value;
  std::memcpy(&value, &bits, sizeof(V));
  return value;
}

template <typename E, int COUNT, int LINE>
inline E* shared_array(const char*) {
  static E memory[COUNT];
  static unsigned filled = 0;
  if (filled != block_serial) std::memset(memory, 0xff, sizeof(memory)), filled = block_serial;
  return memory;
}

}  // namespace emulated

#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define blockDim emulated::block_size
#define gridDim emulated::grid_size
#define APML_SHARED(type, name, count) type* name = emulated::shared_array<type, count, __LINE__>(__FILE__)
#define APML_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), emulated::launch(grid, block, [=] { kernel(__VA_ARGS__); }))

inline void __syncthreads() { emulated::wait(emulated::block_barrier, blockDim.x, "__syncthreads"); }

template <typename V>
inline V __shfl_xor_sync(unsigned, V value, int step) {
  return emulated::value_of<V>(emulated::share(value, "__shfl_xor_sync")[(threadIdx.x % 32) ^ step]);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const uint64_t* votes = emulated::share<uint64_t>(vote, "__ballot_sync");
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= static_cast<unsigned>(votes[lane] & 1) << lane;
  return result;
}
inline unsigned __reduce_min_sync(unsigned, unsigned value) {
  const uint64_t* values = emulated::share<uint64_t>(value, "__reduce_min_sync");
  return static_cast<unsigned>(*std::min_element(values, values + 32));
}

inline unsigned __float_as_uint(float v) {
  unsigned bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return bits;
}
inline float __uint_as_float(unsigned v) { return emulated::value_of<float>(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int atomicMax(int* at, int v) {
  const int old = *at;
  *at = std::max(old, v);
  return old;
}
using std::isfinite;
using std::min;
