// Work in chunks on PyTorch's threads. Inside a parallel region (a batch) the chunks run one after another.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace apml::cpu {

// How many chunks make sense for `items` pieces of work. Several a thread: neighbouring rows are long together, and
// threads that are done take what is left. Results never depend on the number of chunks.
inline int64_t chunks_for(int64_t items, int64_t least = 64) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  if (threads == 1) return 1;
  const int64_t most = (items + least - 1) / least;
  return 4 * threads < most ? 4 * threads : (most < 1 ? 1 : most);
}

// Calls work(chunk, begin, end) for `chunks` nearly equal ranges of [0, items).
template <typename Work>
void parallel(int64_t items, int64_t chunks, const Work& work) {
  const int64_t threads = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), chunks);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread)
      for (int64_t c = next++; c < chunks; c = next++) work(c, items * c / chunks, items * (c + 1) / chunks);
  });
}

// Calls work(chunk) for every chunk, each time on the same thread, so that its data stays in that core's cache.
// `before(chunk)` is how much work comes before it, of before(chunks) in all.
template <typename Before, typename Work>
void parallel_again(int64_t chunks, const Before& before, const Work& work) {
  const int64_t threads = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), chunks);
  const int64_t all = std::max<int64_t>(1, before(chunks));
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t thread = std::min(threads - 1, (before(c) + before(c + 1)) / 2 * threads / all);
      if (first <= thread && thread < last) work(c);
    }
  });
}

}  // namespace apml::cpu
