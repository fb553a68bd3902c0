// The few things host code needs of CUDA itself; the test build replaces this header's content by its own.
#pragma once

#ifdef APML_EMULATED
#include "emulated_device.h"
#else

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "launchers.h"

#define APML_IMPLEMENT(m) TORCH_LIBRARY_IMPL(apml, CUDA, m)

namespace apml::cuda {

using DeviceGuard = c10::cuda::CUDAGuard;

inline Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

inline bool capturing() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

inline at::Tensor fresh_bytes(int64_t bytes, const at::Tensor& like) {
  return at::empty({bytes}, like.options().dtype(at::kByte));
}

}  // namespace apml::cuda

#endif
