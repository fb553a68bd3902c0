// Kernels that are wrong on purpose: the emulation must notice.
#include "emulated_cuda.h"

#include <torch/library.h>

#include "../../cuda_ext/cuda/warp.cuh"

namespace {

// 0: nothing wrong. 1: a lane leaves early. 2: lanes meet in different collectives. 3: a barrier some never reach.
// 4: shared memory read before it is written.
void wrong_kernel(int64_t kind, double* out) {
  APML_SHARED(double, memory, 4);
  const unsigned lane = threadIdx.x;
  if (kind == 1 && lane == 5) return;
  unsigned sum = 0;
  if (kind == 2 && lane % 2) {
    sum = __ballot_sync(apml::cuda::ALL, true);
  } else {
    sum = __shfl_xor_sync(apml::cuda::ALL, lane, 1);
  }
  if (kind == 3 && lane < 32) __syncthreads();
  if (lane == 0) out[0] = kind == 4 ? memory[2] : sum;
}

double run(int64_t kind) {
  double result = 0.0, *out = &result;
  APML_LAUNCH(wrong_kernel, dim3(1), dim3(64), nullptr, kind, out);
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(apml_emulated, m) { m.def("misuse(int kind) -> float", run); }
