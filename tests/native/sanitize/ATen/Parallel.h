// Stands before PyTorch's <ATen/Parallel.h> when the CPU ops are built for a sanitizer: the same splitting of the
// work, on std::thread. OpenMP's library is not instrumented, so ThreadSanitizer would not see its barriers.
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

// Internal linkage throughout: PyTorch's own library keeps its own.
namespace at {

inline thread_local int sanitized_thread = -1;  // the number within a parallel region, else -1

[[maybe_unused]] static int get_num_threads() { return 4; }
[[maybe_unused]] static bool in_parallel_region() { return sanitized_thread >= 0; }
[[maybe_unused]] static int get_thread_num() { return std::max(0, sanitized_thread); }

template <typename Work>
static void parallel_for(const int64_t begin, const int64_t end, const int64_t grain, const Work& work) {
  if (begin >= end) return;
  const int64_t items = end - begin, outer = sanitized_thread;
  const int64_t most = grain > 0 ? (items + grain - 1) / grain : items;
  const int64_t threads = in_parallel_region() ? 1 : std::min<int64_t>(get_num_threads(), most);
  const int64_t chunk = (items + threads - 1) / threads;
  std::vector<std::exception_ptr> errors(threads);
  const auto run = [&](int64_t t) {
    sanitized_thread = outer < 0 ? static_cast<int>(t) : static_cast<int>(outer);
    try {
      const int64_t first = begin + t * chunk;
      if (first < end) work(first, std::min(end, first + chunk));
    } catch (...) {
      errors[t] = std::current_exception();
    }
    sanitized_thread = static_cast<int>(outer);
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < threads; ++t) others.emplace_back([&run, t] { run(t); });
  run(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

template <typename Value, typename Work, typename Join>
static Value parallel_reduce(int64_t begin, int64_t end, int64_t, Value start, const Work& work, const Join&) {
  return begin < end ? work(begin, end, start) : start;
}

}  // namespace at
