// The adaptive temperature of the one-sided softmin and the radius of its support (APML, step 2).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define APML_HD __host__ __device__ inline
#else
#define APML_HD inline
#endif

namespace apml {

// Added to the gap between the two nearest costs: keeps the temperature finite at a tie.
constexpr double MARGIN = 1e-8;

// What defines a matching, as the op's arguments give it.
struct Settings {
  double p_min;
  double threshold;
  int64_t iterations;
  double eps;
  bool uniform_ties;
};

// ln((K - 1) / (1 - p_min)): how many nats the runner-up lies below the nearest of K points; 0 for one point.
APML_HD double log_odds(int64_t candidates, double p_min) {
  return candidates < 2 ? 0.0 : std::log(static_cast<double>(candidates - 1) / (1.0 - p_min));
}

APML_HD double inverse_temperature(double gap, double odds) { return odds / (gap + MARGIN); }

// The cost below which the unnormalised similarity exceeds the threshold, with nats = ln(1 / threshold).
// Widened by more than the rounding of its own sum, so that the nearest point itself is never lost.
APML_HD double support_radius(double nearest, double gap, double odds, double nats) {
  if (!(odds > 0.0)) return std::numeric_limits<double>::infinity();  // every candidate has similarity 1
  return (nearest + (gap + MARGIN) * (nats / odds)) * (1.0 + 1e-14);
}

// Squared Euclidean distance, coordinates in order and never fused, so that equal distances come out equal on
// every backend. (C++ is compiled with -ffp-contract=off, CUDA with -fmad=false.)
template <typename T>
APML_HD T squared_distance(const T* a, const T* b) {
  const T x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return x * x + y * y + z * z;
}

}  // namespace apml
