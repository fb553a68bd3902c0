// The pipeline for the compiler's own baseline.
#define APML_ISA baseline
#include "solve.h"

namespace apml::cpu {
const Entry& entry_default() {
  static const Entry e{"baseline", baseline::functions<float>(), baseline::functions<double>(), baseline::assign};
  return e;
}
}  // namespace apml::cpu
