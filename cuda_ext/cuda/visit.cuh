// Walking a cloud's boxes: which clusters can matter to a cluster of 32 queries, a warp at a time.
//
// Boxes and bounds are float whatever the clouds are; they only decide what is looked at. Boxes are rounded
// outwards and bounds widened by more than float rounding, so nothing that counts is passed over.
#pragma once

#include "warp.cuh"

namespace apml::cuda {

constexpr double SLACK = 4e-6;     // relative; float rounding of a squared distance is below 5e-7
constexpr double SMALLEST = 1e-37;  // absolute, for what float cannot hold

// An upper bound in float for comparing with squared distances computed in float.
__device__ inline float widened(double squared) { return static_cast<float>(squared * (1.0 + SLACK) + SMALLEST); }

// Squared distance of points for searching: in float it may be fused, in double it is the exact definition.
__device__ inline float search_squared(const Point<float>& a, const Point<float>& b) {
  const float x = a.at[0] - b.at[0], y = a.at[1] - b.at[1], z = a.at[2] - b.at[2];
  return fmaf(z, z, fmaf(y, y, x * x));
}
__device__ inline double search_squared(const Point<double>& a, const Point<double>& b) {
  return squared_distance(a.at, b.at);
}

// The squared distance that decides: in double, from the coordinates as given.
template <typename T>
__device__ inline double exact_squared(const Point<T>& a, const Point<T>& b) {
  const double p[3] = {a.at[0], a.at[1], a.at[2]}, q[3] = {b.at[0], b.at[1], b.at[2]};
  return squared_distance(p, q);
}

// Squared distance between boxes; infinite when one is empty.
__device__ inline float box_squared(const Box& a, const Box& b) {
  float squared = 0.0f;
  for (int k = 0; k < 3; ++k) {
    const float gap = fmaxf(0.0f, fmaxf(a.low[k] - b.high[k], b.low[k] - a.high[k]));
    squared = fmaf(gap, gap, squared);
  }
  return squared;
}

__device__ inline float rounded_down(double v) {
  const float f = static_cast<float>(v);
  return f - fabsf(f) * 2.4e-7f - 1e-37f;
}

// The box of one point.
template <typename T>
__device__ inline Box point_box(const Frame& frame, const Point<T>& point) {
  Box box = {};
  for (int k = 0; k < 3; ++k) {
    const double relative = static_cast<double>(point.at[k]) - frame.low[k];
    box.low[k] = rounded_down(relative);
    box.high[k] = -rounded_down(-relative);
  }
  return box;
}

// A distance with the lane that holds it in its last five bits: the smallest of a warp says where it is.
constexpr unsigned NONE = 0xffffffffu;
__device__ inline unsigned with_lane(float squared) { return (__float_as_uint(squared) & ~31u) | threadIdx.x % 32; }
__device__ inline float distance_of(unsigned picked) { return __uint_as_float(picked & ~31u); }  // NONE: NaN

// Calls visit(cluster) for the clusters of `other` nearest first, as long as they lie within bound(), which is uniform
// over the warp and may shrink on the way, and some lane wants(box). `start` is the group of 32 blocks to begin with.
template <typename T, typename Bound, typename Wants, typename Visit>
__device__ void visit_near(const Tree<T>& tree, const Cloud& other, const Box& box, int start, Bound bound,
                           Wants wants, Visit visit) {
  const int lane = threadIdx.x % 32, blocks = other.blocks(), clusters = other.clusters();
  const int groups = (blocks + 31) / 32;
  for (int g = 0; g < groups; ++g) {
    const int group = (start + g) % groups, mine = group * 32 + lane;
    unsigned block_left = mine < blocks ? with_lane(box_squared(box, tree.blocks[other.block + mine])) : NONE;
    while (true) {
      const unsigned block_picked = warp_min(block_left);
      if (!(distance_of(block_picked) <= bound())) break;
      if (block_left == block_picked) block_left = NONE;
      const int first = (group * 32 + static_cast<int>(block_picked & 31u)) * 32;
      const bool there = first + lane < clusters;
      unsigned left = there ? with_lane(box_squared(box, tree.clusters[other.box + first + lane])) : NONE;
      while (true) {
        const unsigned picked = warp_min(left);
        if (!(distance_of(picked) <= bound())) break;
        if (left == picked) left = NONE;
        const int cluster = first + static_cast<int>(picked & 31u);
        if (__ballot_sync(ALL, wants(tree.clusters[other.box + cluster]))) visit(cluster);
      }
    }
  }
}

// How far a point, its cluster and its block reach. All lanes of a warp must call it, with the points of a cluster. A
// largest value does not depend on the order of the warps.
template <typename T>
__device__ void write_reach(const Tree<T>& tree, const Cloud& own, int64_t i, double radius) {
  const double squared = radius * radius * (1.0 + SLACK);
  tree.points[own.base + i].at[3] = static_cast<T>(radius > 0.0 ? squared + SMALLEST : 0.0);
  const float widest = warp_max(widened(radius));
  if (threadIdx.x % 32 != 0) return;
  tree.clusters[own.box + i / CLUSTER].reach = widest;
  atomicMax(reinterpret_cast<int*>(&tree.blocks[own.block + i / BLOCK].reach), static_cast<int>(__float_as_uint(widest)));
}

// Calls visit(cluster) in order for the clusters of `other` that may hold a point within `reach` of one in `box`,
// or one of whose own reach `box` holds a point, and that some lane wants(box).
template <typename T, typename Wants, typename Visit>
__device__ void visit_within(const Tree<T>& tree, const Cloud& other, const Box& box, float reach, Wants wants,
                             Visit visit) {
  const int lane = threadIdx.x % 32, blocks = other.blocks(), clusters = other.clusters();
  const auto close = [&](const Box& there) {
    const float most = fmaxf(reach, there.reach);
    return box_squared(box, there) <= widened(static_cast<double>(most) * most);
  };
  for (int group = 0; group < blocks; group += 32) {
    const bool hit = group + lane < blocks && close(tree.blocks[other.block + group + lane]);
    for (unsigned left = __ballot_sync(ALL, hit); left; left &= left - 1) {
      const int first = (group + __ffs(static_cast<int>(left)) - 1) * 32;
      const bool near = first + lane < clusters && close(tree.clusters[other.box + first + lane]);
      for (unsigned some = __ballot_sync(ALL, near); some; some &= some - 1) {
        const int cluster = first + __ffs(static_cast<int>(some)) - 1;
        if (__ballot_sync(ALL, wants(tree.clusters[other.box + cluster]))) visit(cluster);
      }
    }
  }
}

// Calls each(slot, point) for the valid points of a cluster; the address is the same for the whole warp.
template <typename T, typename Each>
__device__ void each_point(const Tree<T>& tree, const Cloud& cloud, int cluster, Each each) {
  const int first = cluster * CLUSTER, count = min(CLUSTER, cloud.length - first);
  const Point<T>* points = tree.points + cloud.base + first;
#pragma unroll 4
  for (int k = 0; k < count; ++k) each(first + k, points[k]);
}

// The group of 32 blocks of `other` at the same share of the curve as slot `i` of `own`: a good place to begin.
__device__ inline int same_group(const Cloud& own, const Cloud& other, int64_t i) {
  const int64_t groups = (other.blocks() + 31) / 32;
  return own.length > 0 ? static_cast<int>(i * groups / own.length) : 0;
}

}  // namespace apml::cuda
