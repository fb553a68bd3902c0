// How many points of each cloud count.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>

namespace apml::cpu {

class Lengths {
 public:
  Lengths(const std::optional<at::Tensor>& given, const at::Tensor& cloud) : all_(cloud.size(1)) {
    if (!given.has_value()) return;
    given_ = given->contiguous();
    for (int64_t b = 0; b < given_.size(0); ++b)
      TORCH_CHECK((*this)[b] >= 0 && (*this)[b] <= all_, "apml: length ", (*this)[b], " of cloud ", b,
                  " must lie between 0 and ", all_);
  }
  int64_t operator[](int64_t b) const { return given_.defined() ? given_.const_data_ptr<int64_t>()[b] : all_; }

 private:
  at::Tensor given_;
  int64_t all_;
};

}  // namespace apml::cpu
