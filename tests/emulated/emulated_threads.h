// Threads of a block as fibers: each runs until it waits at a barrier, and a block that cannot go on is an error.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

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

}  // namespace emulated
