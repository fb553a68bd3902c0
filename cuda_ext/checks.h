// What every op checks before it touches memory. The user's own checks, with remedies, are in Python.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>

#include "common/bisection.h"
#include "common/temperature.h"

namespace apml {

inline void check_clouds(const char* op, const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.dim() == 3 && b.dim() == 3, "apml::", op, ": clouds must be (B, N, D), got ", a.sizes(), " and ",
              b.sizes());
  TORCH_CHECK(a.size(0) == b.size(0) && a.size(2) == b.size(2), "apml::", op,
              ": clouds must agree in batch and coordinates, got ", a.sizes(), " and ", b.sizes());
  TORCH_CHECK(a.size(2) >= 1 && a.size(2) <= 3, "apml::", op, ": 1, 2 or 3 coordinates are supported, got ",
              a.size(2));
  TORCH_CHECK(a.scalar_type() == b.scalar_type() && (a.scalar_type() == at::kFloat || a.scalar_type() == at::kDouble),
              "apml::", op, ": clouds must both be float32 or float64, got ", a.scalar_type(), " and ",
              b.scalar_type());
  TORCH_CHECK(a.device() == b.device(), "apml::", op, ": clouds must be on one device, got ", a.device(), " and ",
              b.device());
  TORCH_CHECK(a.size(1) < (int64_t{1} << 31) && b.size(1) < (int64_t{1} << 31), "apml::", op,
              ": at most 2^31 - 1 points a cloud");
}

// Values are trusted to lie in [0, points]: Python made them, and reading them here would stall a GPU.
inline void check_lengths(const char* op, const std::optional<at::Tensor>& lengths, const at::Tensor& cloud) {
  if (!lengths.has_value()) return;
  TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == cloud.size(0) && lengths->scalar_type() == at::kLong &&
                  lengths->device() == cloud.device(),
              "apml::", op, ": lengths must be int64 (", cloud.size(0), ",) on ", cloud.device(), ", got ",
              lengths->scalar_type(), " ", lengths->sizes(), " on ", lengths->device());
}

// Python checks these for the user; here they keep a direct call from running for ever or dividing by zero. The threshold
// 0 is adaptive: the loss is then exact to the precision of the clouds.
inline Settings checked_settings(const char* op, double p_min, double threshold, int64_t iterations, double eps,
                                 bool uniform_ties, const at::Tensor& cloud) {
  TORCH_CHECK_VALUE(p_min >= 0 && p_min < 1 && threshold >= 0 && threshold < 1 && iterations >= 0 && eps > 0, "apml::",
                    op, ": p_min in [0, 1), threshold in [0, 1), iterations >= 0 and eps > 0 are needed, got ", p_min,
                    ", ", threshold, ", ", iterations, " and ", eps);
  return {p_min, threshold, iterations, eps, uniform_ties, cloud.scalar_type() == at::kDouble ? 1e-12 : 1e-5};
}

inline void check_settings(const char* op, const FastSettings& s) {
  TORCH_CHECK_VALUE(s.restarts >= 1 && s.neighbours >= 1 && s.neighbours <= MOST_NEIGHBOURS && s.passes >= 0, "apml::",
                    op, ": restarts >= 1, neighbours in [1, ", MOST_NEIGHBOURS, "] and passes >= 0 are needed, got ",
                    s.restarts, ", ", s.neighbours, " and ", s.passes);
}

}  // namespace apml
