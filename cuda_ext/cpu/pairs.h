// One pair of a batch after another: side by side when there are many, each on all threads when there are few.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <new>

#include "entry.h"
#include "lengths.h"

namespace apml::cpu {

// Pair b of the batch, without gradients.
template <typename Given>
Pair<Given> pair_of(const at::Tensor& a, const at::Tensor& b, const Lengths& a_n, const Lengths& b_n, int64_t index) {
  const int64_t d = a.size(2);
  return {a.const_data_ptr<Given>() + index * a.size(1) * d,
          b.const_data_ptr<Given>() + index * b.size(1) * d,
          a_n[index],
          b_n[index],
          static_cast<int>(d),
          nullptr,
          nullptr};
}

template <typename Work>
void each_pair(int64_t batch, const Work& work) {
  if (batch >= at::get_num_threads())
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) work(b);
    });
  else
    for (int64_t b = 0; b < batch; ++b) work(b);
}

// Runs work(); running out of memory names the pair and, for a threshold below 1, how far its support had grown.
template <typename Work>
void within_memory(const char* op, int64_t b, int64_t n, int64_t m, double threshold, const int64_t& entries,
                   const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "apml::", op, ": out of memory for pair ", b, " of ", n, " and ", m,
                     " points",
                     threshold < 1 ? c10::str(", after ", entries, " entries of its support: use ",
                                              threshold > 0 ? c10::str("a larger threshold than ", threshold)
                                                            : std::string("a fixed threshold such as 1e-20"),
                                              " or fewer points")
                                   : std::string(": use fewer points"));
  }
}

}  // namespace apml::cpu
