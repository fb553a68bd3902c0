// All kernels in one translation unit, with CUDA's words from emulated_cuda.h.
#include "emulated_cuda.h"

#include "../../cuda_ext/cuda/adjoint.cu"
#include "../../cuda_ext/cuda/chamfer_sweep.cu"
#include "../../cuda_ext/cuda/nearest.cu"
#include "../../cuda_ext/cuda/order.cu"
#include "../../cuda_ext/cuda/sinkhorn.cu"
#include "../../cuda_ext/cuda/support.cu"
#include "../../cuda_ext/cuda/sweep.cu"
