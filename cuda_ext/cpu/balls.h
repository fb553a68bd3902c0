// Each point's two nearest in the other cloud, and from them its temperature and the radius of its support.
#pragma once

#include "parallel.h"
#include "search.h"

namespace apml::cpu {
namespace APML_ISA {

struct Balls {
  int64_t size = 0;
  Array<double> nearest, gap, inverse_t, threshold;
  Array<double> radius;                           // -1: no ball, the point spreads over the whole cloud
  Array<int32_t> at_first, at_second;             // sorted positions in the other cloud, -1 for none
  double odds = 0, uniform_share = 0;             // what a point without a ball gives to each other point, halved
  int64_t without_ball = 0;

  void set_threshold(int64_t i, double to) {
    threshold[i] = to;
    if (radius[i] >= 0) radius[i] = support_radius(nearest[i], inverse_t[i], -std::log(to));
  }

  double least_threshold() const {
    double least = 1;
    for (int64_t i = 0; i < size; ++i) least = threshold[i] < least ? threshold[i] : least;
    return least;
  }
};

template <typename T>
void find_balls(const Tree<T>& from, const Tree<T>& to, const Settings& settings, Balls& balls) {
  const int64_t n = from.size, m = to.size;
  balls.size = n;
  balls.nearest.allocate(n);
  balls.gap.allocate(n);
  balls.inverse_t.allocate(n);
  balls.threshold.allocate(n);
  balls.radius.allocate(n);
  balls.at_first.allocate(n);
  balls.at_second.allocate(n);
  balls.odds = log_odds(m, settings.p_min);
  balls.uniform_share = 0.5 / static_cast<double>(m);
  const double threshold = settings.adaptive() ? first_threshold(m, settings) : settings.threshold;
  const double nats = -std::log(threshold);
  const bool uniform = settings.uniform_ties && m > 1;
  const int64_t chunks = chunks_for(from.leaves, 8);
  Array<int64_t> without;
  without.allocate(chunks, 0);
  parallel(from.leaves, chunks, [&](int64_t chunk, int64_t begin, int64_t end) {
    Walk<T> walk;
    Two two[LANES];
    for (int64_t leaf = begin; leaf < end; ++leaf) {
      two_nearest(from, leaf, to, 2, walk, two);
      const int64_t stop = std::min(n, (leaf + 1) * LANES);
      for (int64_t i = leaf * LANES; i < stop; ++i) {
        const Two& t = two[i - leaf * LANES];
        const double nearest = std::sqrt(t.first);
        const double gap = m > 1 ? std::sqrt(t.second) - nearest : 0.0;
        balls.nearest[i] = nearest;
        balls.gap[i] = gap;
        balls.threshold[i] = threshold;
        balls.at_first[i] = t.at_first;
        balls.at_second[i] = t.at_second;
        balls.inverse_t[i] = inverse_temperature(gap, balls.odds);
        const bool tied = uniform && gap == 0.0;
        balls.radius[i] = tied ? -1.0 : support_radius(nearest, gap, balls.odds, nats);
        without[chunk] += tied;
      }
    }
  });
  for (int64_t c = 0; c < chunks; ++c) balls.without_ball += without[c];
}

// Squared radii for the search's own precision, never too small, padded with -1 to whole leaves.
template <typename T>
void squared_radii(const Balls& balls, const Tree<T>& tree, Array<T>& out) {
  constexpr double most = std::numeric_limits<T>::max();
  out.allocate(tree.leaves * LANES, T(-1));
  for (int64_t i = 0; i < tree.size; ++i) {
    const double r = balls.radius[i];
    if (r < 0) continue;
    const double squared = widened(r * r * (1.0 + 1e-6 * (sizeof(T) == 4)), T());
    out[i] = squared < most * 0.99 ? static_cast<T>(squared) : std::numeric_limits<T>::max();
  }
}

}  // namespace APML_ISA
}  // namespace apml::cpu
