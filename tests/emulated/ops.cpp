// The host code of the CUDA ops and their schema, as namespace apml_emulated on CPU tensors.
#include "../../cuda_ext/cuda/match_op.cpp"
#include "../../cuda_ext/cuda/chamfer_op.cpp"
#include "../../cuda_ext/schema.h"

TORCH_LIBRARY(apml_emulated, m) {
  m.def(apml::schema::MATCH);
  m.def(apml::schema::PLAN);
  m.def(apml::schema::NEAREST);
  m.def(apml::schema::CHAMFER);
}
