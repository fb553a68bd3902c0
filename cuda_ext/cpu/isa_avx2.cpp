// The pipeline for x86-64 with avx2. Only our own functions are compiled for it: headers come first.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "entry.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt")
#define APML_ISA avx2
#define APML_AVX
#include "solve.h"

namespace apml::cpu {
const Entry& entry_avx2() {
  static const Entry e{"avx2", avx2::functions<float>(), avx2::functions<double>(), avx2::assign};
  return e;
}
}  // namespace apml::cpu
#else
namespace apml::cpu {
const Entry& entry_avx2() { return entry_default(); }
}  // namespace apml::cpu
#endif
