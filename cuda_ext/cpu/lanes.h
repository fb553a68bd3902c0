// Eight values at a time: GCC and clang vectors, which every instruction set lowers to its own width.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace apml::cpu {
namespace APML_ISA {

constexpr int LANES = 8;

template <typename T>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Values __attribute__((vector_size(32)));
  typedef int32_t Flags __attribute__((vector_size(32)));
};
template <>
struct LanesOf<double> {
  typedef double Values __attribute__((vector_size(64)));
  typedef int64_t Flags __attribute__((vector_size(64)));
};
template <typename T>
using Lanes = typename LanesOf<T>::Values;
template <typename T>
using Flags = typename LanesOf<T>::Flags;

template <typename T>
inline Lanes<T> load(const T* p) {
  Lanes<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <typename T>
inline Lanes<T> spread(T value) {
  return value - Lanes<T>{};
}

template <typename V>
inline V lower(V a, V b) {
  return a < b ? a : b;
}
template <typename V>
inline V upper(V a, V b) {
  return a > b ? a : b;
}

template <typename T>
inline T largest(Lanes<T> v) {
  T most = v[0];
  for (int k = 1; k < LANES; ++k) most = v[k] > most ? v[k] : most;
  return most;
}

// Bit k is set where lane k holds.
inline unsigned bits(LanesOf<float>::Flags f) {
#if defined(__AVX__)
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(f)));
#else
  unsigned m = 0;
  for (int k = 0; k < LANES; ++k) m |= static_cast<unsigned>(f[k] & 1) << k;
  return m;
#endif
}
inline unsigned bits(LanesOf<double>::Flags f) {
#if defined(__AVX512DQ__)
  return static_cast<unsigned>(_mm512_movepi64_mask(reinterpret_cast<__m512i>(f)));
#elif defined(__AVX__)
  __m256d half[2];
  std::memcpy(half, &f, sizeof(half));
  return static_cast<unsigned>(_mm256_movemask_pd(half[0]) | _mm256_movemask_pd(half[1]) << 4);
#else
  unsigned m = 0;
  for (int k = 0; k < LANES; ++k) m |= static_cast<unsigned>(f[k] & 1) << k;
  return m;
#endif
}

// positions[m] lists the set bits of m, lowest first: how lanes are packed to the left without branches.
struct BitPositions {
  uint8_t of[256][LANES];
  constexpr BitPositions() : of() {
    for (int m = 0; m < 256; ++m) {
      int at = 0;
      for (int k = 0; k < LANES; ++k)
        if (m >> k & 1) of[m][at++] = static_cast<uint8_t>(k);
    }
  }
};
constexpr BitPositions POSITIONS{};

// exp(-x) for x >= 0 to about one unit in the last place; 0 from 708 on. Written for loops that vectorise.
// Cody-Waite reduction by ln 2, then the Taylor series of exp on [-0.35, 0.35].
inline double exp_minus(double x) {
  const double shifter = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to a whole number, in the low bits
  const double capped = x < 708.0 ? x : 708.0;
  const double shifted = capped * -1.4426950408889634074 + shifter;
  const double whole = shifted - shifter;
  double r = -capped - whole * 6.93147180369123816490e-01;
  r -= whole * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  int64_t exponent;
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = static_cast<int64_t>(static_cast<uint64_t>(exponent) << 52);
  int64_t result;
  std::memcpy(&result, &p, sizeof(result));
  result += exponent;
  double value;
  std::memcpy(&value, &result, sizeof(value));
  return x < 708.0 ? value : 0.0;
}

}  // namespace APML_ISA
}  // namespace apml::cpu
