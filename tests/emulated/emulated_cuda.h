// CUDA's words on the CPU, for tests: the kernels' own source runs with one fiber a thread, one block at a time.
//
// Every collective is a barrier over its warp or block. Lanes of a warp that meet in different collectives, or a lane
// that left while the others wait, end the launch with an error instead of hanging. Shared memory starts as NaN.
// APML_EMULATED_REVERSE=1 runs threads and blocks in the opposite order: results must not depend on it.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulated {

constexpr unsigned LANES = 32;
constexpr size_t STACK = 128 * 1024;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[STACK]};
  ucontext_t context;
  jmp_buf at;
  bool started = false, done = true;
  const unsigned* waiting = nullptr;  // counts the barrier's generations
  unsigned generation = 0;
};

struct Barrier {
  unsigned arrived = 0, generation = 0;
  const char* kind = nullptr;
};

struct Warp {
  Barrier barrier;
  uint64_t values[2][LANES];  // two rounds: a lane may write the next one while another still reads this one
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Warp> warps;
inline Barrier block_barrier;
inline std::function<void()> body;
inline std::string problem;
inline jmp_buf scheduler;
inline unsigned current, block_serial;
inline dim3 thread_index, block_index, block_size, grid_size;

inline void leave() {
  if (!_setjmp(fibers[current]->at)) _longjmp(scheduler, 1);
}

inline void fiber_main() {
  for (;;) {
    body();
    fibers[current]->done = true;
    leave();
  }
}

inline void wait(Barrier& barrier, unsigned members, const char* kind) {
  if (barrier.arrived > 0 && std::strcmp(barrier.kind, kind) != 0) {
    problem = std::string("threads meet in different collectives: ") + barrier.kind + " and " + kind;
    for (;;) leave();
  }
  barrier.kind = kind;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  Fiber& fiber = *fibers[current];
  fiber.waiting = &barrier.generation;
  fiber.generation = barrier.generation;
  leave();
}

// Runs thread `t` until it finishes or waits; whether it could run at all.
inline bool resume(unsigned t) {
  Fiber& fiber = *fibers[t];
  if (fiber.done || (fiber.waiting && *fiber.waiting == fiber.generation)) return false;
  fiber.waiting = nullptr;
  current = t;
  thread_index = dim3(t);
  if (!_setjmp(scheduler)) {
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
  }
  return true;
}

inline void run_block(unsigned threads, bool reverse) {
  ++block_serial;
  warps.assign((threads + LANES - 1) / LANES, Warp{});
  block_barrier = Barrier{};
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  for (unsigned t = 0; t < threads; ++t) fibers[t]->done = false, fibers[t]->waiting = nullptr;
  for (bool moved = true; moved && problem.empty();) {
    moved = false;
    for (unsigned k = 0; k < threads; ++k) moved |= resume(reverse ? threads - 1 - k : k);
  }
  unsigned stuck = 0;
  for (unsigned t = 0; t < threads; ++t) stuck += !fibers[t]->done;
  if (stuck == 0) return;
  if (problem.empty()) problem = std::to_string(stuck) + " threads wait for ones that have left";
  const std::string text = problem;
  problem.clear();
  fibers.clear();  // their stacks are in the middle of something
  throw std::runtime_error("emulated CUDA: block " + std::to_string(block_index.x) + ", " + text);
}

inline std::mutex one_launch;

inline void launch(dim3 grid, dim3 block, std::function<void()> kernel) {
  const std::lock_guard<std::mutex> lock(one_launch);
  const char* order = std::getenv("APML_EMULATED_REVERSE");
  const bool reverse = order && *order == '1';
  if (grid.x == 0 || grid.y == 0 || grid.y > 65535 || block.x == 0 || block.x > 1024)
    throw std::runtime_error("emulated CUDA: invalid launch configuration");
  body = std::move(kernel);
  grid_size = grid;
  block_size = block;
  const uint64_t blocks = uint64_t{grid.x} * grid.y;
  for (uint64_t k = 0; k < blocks; ++k) {
    const uint64_t b = reverse ? blocks - 1 - k : k;
    block_index = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x));
    run_block(block.x, reverse);
  }
}

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
