// The one or two nearest points of the other cloud, and the temperature and support radius that follow.
//
// A warp takes a cluster of 32 neighbouring queries, a lane each. For float clouds a first round of branchless float
// arithmetic finds how far the nearest can be; the second round settles in double what lies within.
#include "launchers.h"
#include "visit.cuh"

namespace apml::cuda {
namespace {

struct Found {
  double first, second;  // squared, infinite where there is none
  int first_slot, second_slot;
};

__device__ bool finite(const Point<float>& p) { return isfinite(p.at[0] + p.at[1] + p.at[2]); }
__device__ bool finite(const Point<double>& p) { return isfinite(p.at[0] + p.at[1] + p.at[2]); }

// All lanes of the warp must call it; lanes without a finite query take no part.
template <typename T, int K>
__device__ Found search(const Tree<T>& tree, const Cloud& own, const Cloud& other, int64_t i, bool valid) {
  const Point<T> query = tree.points[own.base + i];
  const Box box = tree.clusters[own.box + i / CLUSTER], mine = point_box(tree.frames[own.pair], query);
  const int start = same_group(own, other, i - i % CLUSTER);
  const bool searching = valid && finite(query);
  const float none = static_cast<float>(INFINITE);
  float limit = searching ? none : -1.0f;  // what a candidate's search distance must not exceed
  const auto bound = [&] { return warp_max(fmaxf(limit, 0.0f)); };
  const auto wants = [&](const Box& there) { return box_squared(mine, there) <= limit; };

  if constexpr (sizeof(T) == sizeof(float)) {
    float first = none, second = none;
    visit_near(tree, other, box, start, bound, wants, [&](int cluster) {
      each_point(tree, other, cluster, [&](int, const Point<T>& point) {
        const float squared = search_squared(query, point);
        if (K == 2) second = fminf(second, fmaxf(first, squared));
        first = fminf(first, squared);
      });
      if (searching) limit = widened(K == 2 ? second : first);
    });
  }

  Found found = {INFINITE, INFINITE, -1, -1};
  visit_near(tree, other, box, start, bound, wants, [&](int cluster) {
    each_point(tree, other, cluster, [&](int slot, const Point<T>& point) {
      if (!(search_squared(query, point) <= limit)) return;
      const double squared = exact_squared(query, point);
      if (squared < found.first) {
        found = {squared, found.first, slot, found.first_slot};
      } else if (K == 2 && squared < found.second) {
        found.second = squared;
        found.second_slot = slot;
      } else if (K == 1 && squared == found.first && found.first_slot >= 0 &&
                 tree.origin[other.base + slot] < tree.origin[other.base + found.first_slot]) {
        found.first_slot = slot;
      } else {
        return;
      }
      limit = fminf(limit, widened(K == 2 ? found.second : found.first));
    });
  });
  return found;
}

template <typename T>
__global__ void one_nearest_kernel(Tree<T> tree, Side side, double* squared, int* nearest) {
  APML_EACH_CLOUD(c, tree.layout, side) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;
    const bool valid = i < own.length;
    const Found found = search<T, 1>(tree, own, other, i, valid);
    // A point that is not finite has no nearest; its distance says so, unless there is nothing to be near to.
    const bool none = !valid || other.length == 0;
    squared[own.base + i] = none ? 0.0 : found.first_slot < 0 ? NOT_A_NUMBER : found.first;
    nearest[own.base + i] = none ? -1 : found.first_slot;
  }
}

template <typename T>
__global__ void two_nearest_kernel(Tree<T> tree, Settings settings, Rule* rules, double* thresholds, double* spread,
                                   double* gaps, Nearest* nearest) {
  APML_EACH_CLOUD(c, tree.layout, Side::BOTH) {
    const Cloud own = tree.layout.cloud(c), other = tree.layout.cloud(tree.layout.other(c));
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i / CLUSTER >= Layout::up(own.points, CLUSTER)) continue;
    const int64_t slot = own.base + i;
    const bool valid = i < own.length && other.length > 0;

    // 1. The two nearest; nothing is found for a query that is not finite or too far for the square to be.
    const Found found = search<T, 2>(tree, own, other, i, valid);
    const double second = found.second_slot < 0 ? sqrt(found.first) : sqrt(found.second);

    // 2. Temperature and radius.
    const double odds = log_odds(other.length, settings.p_min);
    const double threshold =
        settings.adaptive() ? first_threshold(other.length, settings) : settings.threshold;
    Rule rule = {0.0, 0.0, 0.0, 1.0};
    double gap = 0.0, share = 0.0;
    if (valid && found.first_slot < 0) {
      rule.nearest = NOT_A_NUMBER;
    } else if (valid) {
      rule.nearest = sqrt(found.first);
      gap = second - rule.nearest;
      if (spread && other.length > 1 && gap == 0.0) {  // uniform ties: no ball of its own
        share = 0.5 / other.length;
      } else {
        rule.inverse = inverse_temperature(gap, odds);
        rule.radius = support_radius(rule.nearest, gap, odds, -log(threshold));
      }
    }
    rules[slot] = rule;
    thresholds[slot] = threshold;
    if (spread) spread[slot] = share;
    if (gaps) {
      gaps[slot] = gap;
      nearest[slot] = {found.first_slot, found.second_slot};
    }

    // 3. How far points, clusters and blocks reach. Other warps may be reading them, but not for these fields.
    write_reach(tree, own, i, rule.radius);
    const unsigned tied = __ballot_sync(ALL, share > 0.0);
    if (threadIdx.x % 32 == 0) tree.clusters[own.box + i / CLUSTER].tied = tied ? 1.0f : 0.0f;
  }
}

}  // namespace

template <typename T>
void one_nearest(const Tree<T>& tree, Side side, double* squared, int* nearest, Stream stream) {
  APML_LAUNCH(one_nearest_kernel<T>, grid_of(tree.layout, side, THREADS), THREADS, stream, tree, side, squared,
              nearest);
}

template <typename T>
void two_nearest(const Tree<T>& tree, const Settings& settings, Rule* rules, double* threshold, double* spread,
                 double* gap, Nearest* nearest, Stream stream) {
  APML_LAUNCH(two_nearest_kernel<T>, grid_of(tree.layout, Side::BOTH, THREADS), THREADS, stream, tree, settings, rules,
              threshold, spread, gap, nearest);
}

#define APML_INSTANTIATE(T)                                                           \
  template void one_nearest<T>(const Tree<T>&, Side, double*, int*, Stream);          \
  template void two_nearest<T>(const Tree<T>&, const Settings&, Rule*, double*, double*, double*, Nearest*, Stream);
APML_INSTANTIATE(float)
APML_INSTANTIATE(double)
#undef APML_INSTANTIATE

}  // namespace apml::cuda
