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
  double threshold;  // 0: adaptive, one for each point
  int64_t iterations;
  double eps;
  bool uniform_ties;
  double tolerance;  // adaptive thresholds leave out at most this share of the plan's mass

  APML_HD bool adaptive() const { return threshold == 0.0; }
};

constexpr double SMALLEST_THRESHOLD = 1e-300;
constexpr int ROUNDS = 6;

// The largest adaptive threshold, a share of the least similarity that the runner-up of K points may have.
APML_HD double first_threshold(int64_t candidates, const Settings& settings) {
  if (candidates < 2) return 0.5;
  return 1e-2 * settings.tolerance * (1.0 - settings.p_min) / static_cast<double>(candidates - 1);
}

// The threshold of a point with scaling r and softmin denominator 1 / share, at which its left-out entries carry at
// most a quarter of `most`, whatever the points are that they belong to: each is below threshold * share / 2 times r
// times the other's scaling, and these add up to `others`. A quarter, because leaving out less changes the scaling.
APML_HD double next_threshold(double now, double most, double r, double share, double others) {
  const double wanted = 0.25 * most / (r * share * others);  // no number where nothing is left out: 0 / 0
  if (!(wanted < now)) return now;
  return wanted > SMALLEST_THRESHOLD ? wanted : SMALLEST_THRESHOLD;
}

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

// The same from a temperature already known; infinite with the inverse temperature 0 of similarity 1 everywhere.
APML_HD double support_radius(double nearest, double inverse_temperature, double nats) {
  return (nearest + nats / inverse_temperature) * (1.0 + 1e-14);
}

// Squared Euclidean distance, coordinates in order and never fused, so that equal distances come out equal on
// every backend. (C++ is compiled with -ffp-contract=off, CUDA with -fmad=false.)
template <typename T>
APML_HD T squared_distance(const T* a, const T* b) {
  const T x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return x * x + y * y + z * z;
}

}  // namespace apml
