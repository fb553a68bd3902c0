// What cuda_ext/cuda/device.h gives, on the CPU: no streams, and fresh memory full of NaN (and -1).
#pragma once

#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <torch/library.h>

#include <cstdlib>

#include "../../cuda_ext/cuda/launchers.h"

#define APML_IMPLEMENT(m) TORCH_LIBRARY_IMPL(apml_emulated, CPU, m)

namespace apml::cuda {

struct DeviceGuard {
  explicit DeviceGuard(c10::Device) {}
};

inline Stream current_stream() { return nullptr; }

inline bool capturing() { return std::getenv("APML_EMULATED_CAPTURE") != nullptr; }

// More than APML_EMULATED_MEMORY bytes at once do not fit.
inline at::Tensor fresh_bytes(int64_t bytes, const at::Tensor& like) {
  const char* limit = std::getenv("APML_EMULATED_MEMORY");
  TORCH_CHECK_WITH(OutOfMemoryError, !limit || bytes <= std::atoll(limit), "emulated device out of memory: ", bytes);
  return at::empty({bytes}, like.options().dtype(at::kByte)).fill_(0xff);
}

}  // namespace apml::cuda
