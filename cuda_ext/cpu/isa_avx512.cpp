// The pipeline for x86-64 with avx512. Only our own functions are compiled for it: headers come first.
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
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi,bmi2,popcnt,lzcnt")
#define APML_ISA avx512
#define APML_AVX
#define APML_AVX512
#include "solve.h"

namespace apml::cpu {
const Entry& entry_avx512() {
  static const Entry e{"avx512", avx512::functions<float>(), avx512::functions<double>(), avx512::assign};
  return e;
}
}  // namespace apml::cpu
#else
namespace apml::cpu {
const Entry& entry_avx512() { return entry_default(); }
}  // namespace apml::cpu
#endif
