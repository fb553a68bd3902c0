// Eight values at a time: GCC and clang vectors, which every instruction set lowers to its own width.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace apml::cpu {
namespace APML_ISA {

// isa_*.cpp says what may be used (APML_AVX, APML_AVX512): g++ does not update its own macros after a pragma.
constexpr int LANES = 8;

template <typename T>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Values __attribute__((vector_size(32)));
};
template <>
struct LanesOf<double> {
  typedef double Values __attribute__((vector_size(64)));
};
template <typename T>
using Lanes = typename LanesOf<T>::Values;

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

// Spelled out where the compiler would compare and blend, which takes three times as long.
inline Lanes<float> lower(Lanes<float> a, Lanes<float> b) {
#if defined(APML_AVX)
  return reinterpret_cast<Lanes<float>>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}
inline Lanes<float> upper(Lanes<float> a, Lanes<float> b) {
#if defined(APML_AVX)
  return reinterpret_cast<Lanes<float>>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
inline Lanes<double> lower(Lanes<double> a, Lanes<double> b) {
#if defined(APML_AVX512)
  return reinterpret_cast<Lanes<double>>(_mm512_min_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b)));
#else
  return a < b ? a : b;
#endif
}
inline Lanes<double> upper(Lanes<double> a, Lanes<double> b) {
#if defined(APML_AVX512)
  return reinterpret_cast<Lanes<double>>(_mm512_max_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b)));
#else
  return a > b ? a : b;
#endif
}

template <typename T>
inline T largest(Lanes<T> v) {
  typedef T Half __attribute__((vector_size(4 * sizeof(T))));
  Half half[2];
  std::memcpy(half, &v, sizeof(v));
  const Half h = half[0] > half[1] ? half[0] : half[1];
  const T a = h[0] > h[1] ? h[0] : h[1], b = h[2] > h[3] ? h[2] : h[3];
  return a > b ? a : b;
}
#if defined(APML_AVX)
template <>
inline float largest<float>(Lanes<float> v) {
  const __m256 all = reinterpret_cast<__m256>(v);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#endif

// Bit k is set where a <= b in lane k.
inline unsigned at_most(Lanes<float> a, Lanes<float> b) {
#if defined(APML_AVX512)
  return _mm256_cmp_ps_mask(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_LE_OQ);
#elif defined(APML_AVX)
  return static_cast<unsigned>(_mm256_movemask_ps(
      _mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_LE_OQ)));
#else
  const auto holds = a <= b;
  unsigned m = 0;
  for (int k = 0; k < LANES; ++k) m |= static_cast<unsigned>(holds[k] & 1) << k;
  return m;
#endif
}
inline unsigned at_most(Lanes<double> a, Lanes<double> b) {
#if defined(APML_AVX512)
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), _CMP_LE_OQ);
#elif defined(APML_AVX)
  __m256d x[2], y[2];
  std::memcpy(x, &a, sizeof(x));
  std::memcpy(y, &b, sizeof(y));
  return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(x[0], y[0], _CMP_LE_OQ)) |
                               _mm256_movemask_pd(_mm256_cmp_pd(x[1], y[1], _CMP_LE_OQ)) << 4);
#else
  const auto holds = a <= b;
  unsigned m = 0;
  for (int k = 0; k < LANES; ++k) m |= static_cast<unsigned>(holds[k] & 1) << k;
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

// Writes the lanes of eight numbers whose bits are set, packed to the left; what follows them is undefined.
inline void pack(const int32_t* from, unsigned set, int32_t* to) {
#if defined(APML_AVX512)
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_maskz_compress_epi32(static_cast<__mmask8>(set), all));
#elif defined(APML_AVX)
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  const __m128i order = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(POSITIONS.of[set]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_permutevar8x32_epi32(all, _mm256_cvtepu8_epi32(order)));
#else
  for (int k = 0; k < LANES; ++k) to[k] = from[POSITIONS.of[set][k]];
#endif
}

// Adds up in a fixed order, eight sums at a time.
inline double sum_of(const double* v, int64_t count) {
  double lane[LANES] = {};
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES)
    for (int a = 0; a < LANES; ++a) lane[a] += v[k + a];
  for (int a = 0; k < count; ++k, ++a) lane[a] += v[k];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

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
