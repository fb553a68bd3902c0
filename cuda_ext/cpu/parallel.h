// Work in chunks on PyTorch's threads. Inside a parallel region (a batch) the chunks run one after another.
#pragma once

#include <ATen/Parallel.h>

namespace apml::cpu {

// How many chunks make sense for `items` pieces of work: one a thread.
inline int64_t chunks_for(int64_t items, int64_t least = 64) {
  if (at::in_parallel_region()) return 1;
  const int64_t threads = at::get_num_threads();
  const int64_t most = (items + least - 1) / least;
  return threads < most ? threads : (most < 1 ? 1 : most);
}

// Calls work(chunk, begin, end) for `chunks` nearly equal ranges of [0, items).
template <typename Work>
void parallel(int64_t items, int64_t chunks, const Work& work) {
  at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) work(c, items * c / chunks, items * (c + 1) / chunks);
  });
}

}  // namespace apml::cpu
