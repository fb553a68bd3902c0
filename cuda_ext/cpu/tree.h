// A cloud sorted along a Morton curve and cut into leaves of 8 points with bounding boxes; 8 boxes make a box of
// the next level. No cell size to tune: outliers and blobs cost nothing extra.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "array.h"
#include "entry.h"
#include "lanes.h"
#include "parallel.h"

namespace apml::cpu {
namespace APML_ISA {

constexpr int MAX_HEIGHT = 12;  // 8^12 leaves are more than 2^31 points

template <typename T>
struct Level {
  int64_t count = 0;
  Array<T> lo[3], hi[3];
  Array<T> reach;  // largest squared radius of the points inside; filled by set_reach
};

template <typename T>
struct Tree {
  int64_t size = 0, leaves = 0;
  int height = 0;          // level 0 holds the leaves' boxes, level height - 1 at most 8 boxes
  Array<T> x[3];           // sorted coordinates, padded with infinity to whole leaves
  Array<int32_t> order;    // position in the given cloud of each sorted point
  Level<T> level[MAX_HEIGHT];
};

struct Keyed {
  uint64_t key;
  int32_t index;
};
struct ByKey {
  bool operator()(const Keyed& a, const Keyed& b) const { return a.key < b.key || (a.key == b.key && a.index < b.index); }
};

// Two zero bits after each of the low 16 bits.
inline uint64_t with_gaps(uint64_t v) {
  v = (v | v << 16) & 0x0000ff0000ffull;
  v = (v | v << 8) & 0x00f00f00f00full;
  v = (v | v << 4) & 0x0c30c30c30c3ull;
  v = (v | v << 2) & 0x249249249249ull;
  return v;
}

// Sorts by key, stable: four passes of 12 bits, those that would move nothing left out.
inline void sort_keys(Keyed* items, int64_t n) {
  if (n < 1024) {
    std::sort(items, items + n, ByKey());
    return;
  }
  constexpr int BITS = 12, PASSES = 4, BUCKETS = 1 << BITS;
  Array<int32_t> counts;
  counts.allocate(PASSES * BUCKETS, 0);
  for (int64_t i = 0; i < n; ++i)
    for (int p = 0; p < PASSES; ++p) ++counts[p * BUCKETS + (items[i].key >> (p * BITS) & (BUCKETS - 1))];
  Array<Keyed> spare(n);
  Keyed *from = items, *to = spare.data();
  for (int p = 0; p < PASSES; ++p) {
    int32_t* count = counts.data() + p * BUCKETS;
    if (count[from[0].key >> (p * BITS) & (BUCKETS - 1)] == n) continue;
    int32_t start = 0;
    for (int b = 0; b < BUCKETS; ++b) {
      const int32_t here = count[b];
      count[b] = start;
      start += here;
    }
    for (int64_t i = 0; i < n; ++i) to[count[from[i].key >> (p * BITS) & (BUCKETS - 1)]++] = from[i];
    std::swap(from, to);
  }
  if (from != items) std::memcpy(items, from, static_cast<size_t>(n) * sizeof(Keyed));
}

template <typename T>
void build_level(Level<T>& level, int64_t children, T* const* child_lo, T* const* child_hi) {
  const T inf = std::numeric_limits<T>::infinity();
  level.count = (children + LANES - 1) / LANES;
  const int64_t padded = (level.count + LANES - 1) / LANES * LANES;
  for (int k = 0; k < 3; ++k) {
    level.lo[k].allocate(padded);
    level.hi[k].allocate(padded);
    for (int64_t b = 0; b < padded; ++b) {
      T lo = inf, hi = -inf;
      const int64_t stop = std::min(children, (b + 1) * LANES);
      for (int64_t i = b * LANES; i < stop; ++i) {
        lo = std::min(lo, child_lo[k][i]);
        hi = std::max(hi, child_hi[k][i]);
      }
      level.lo[k][b] = lo;
      level.hi[k][b] = hi;
    }
  }
}

// Sorts points along the curve through cubic cells of 1/65535 of their largest side, and those of a crowded cell again
// within it: far outliers leave all the others in one cell. Equal points end in the given order.
template <typename Given>
void sort_points(const Given* points, int d, Keyed* items, int64_t n) {
  double low[3] = {0, 0, 0}, extent = 0;
  for (int k = 0; k < d; ++k) {
    double lo = points[items[0].index * int64_t{d} + k], hi = lo;
    for (int64_t i = 1; i < n; ++i) {
      const double v = points[items[i].index * int64_t{d} + k];
      lo = v < lo ? v : lo;
      hi = v > hi ? v : hi;
    }
    low[k] = lo;
    extent = hi - lo > extent ? hi - lo : extent;
  }
  const double scale = 65535.0 / extent;
  if (!(scale > 0 && scale <= std::numeric_limits<double>::max())) return;  // all equal, or as good as
  for (int64_t i = 0; i < n; ++i) {
    uint64_t key = 0;
    for (int k = 0; k < d; ++k) {
      const double cell = (points[items[i].index * int64_t{d} + k] - low[k]) * scale;
      key |= with_gaps(cell > 0 ? (cell < 65535.0 ? static_cast<uint64_t>(cell) : 65535) : 0) << k;
    }
    items[i].key = key;
  }
  sort_keys(items, n);
  for (int64_t i = 0; i < n;) {
    int64_t end = i + 1;
    while (end < n && items[end].key == items[i].key) ++end;
    if (end - i > LANES && end - i < n) sort_points(points, d, items + i, end - i);
    i = end;
  }
}

// Points (n, d), d <= 3; missing coordinates are 0, points that are not finite are infinitely far.
template <typename T, typename Given>
void build(Tree<T>& tree, const Given* points, int64_t n, int d) {
  Array<Keyed> items(n);
  for (int64_t i = 0; i < n; ++i) items[i] = {0, static_cast<int32_t>(i)};
  sort_points(points, d, items.data(), n);

  tree.size = n;
  tree.leaves = (n + LANES - 1) / LANES;
  const int64_t padded = tree.leaves * LANES;
  tree.order.allocate(padded);
  for (int64_t i = 0; i < n; ++i) tree.order[i] = items[i].index;
  for (int64_t i = n; i < padded; ++i) tree.order[i] = -1;
  T* coordinate[3];
  for (int k = 0; k < 3; ++k) {
    tree.x[k].allocate(padded, std::numeric_limits<T>::infinity());
    for (int64_t i = 0; i < n; ++i) {
      const Given v = k < d ? points[tree.order[i] * int64_t{d} + k] : Given(0);
      tree.x[k][i] = v - v == 0 ? static_cast<T>(v) : std::numeric_limits<T>::infinity();
    }
    coordinate[k] = tree.x[k].data();
  }
  build_level(tree.level[0], n, coordinate, coordinate);
  tree.height = 1;
  while (tree.level[tree.height - 1].count > LANES) {
    Level<T>& below = tree.level[tree.height - 1];
    T *lo[3], *hi[3];
    for (int k = 0; k < 3; ++k) {
      lo[k] = below.lo[k].data();
      hi[k] = below.hi[k].data();
    }
    build_level(tree.level[tree.height], below.count, lo, hi);
    ++tree.height;
  }
}

template <typename T, typename Given>
void build_both(const Pair<Given>& p, Tree<T>& x, Tree<T>& y) {
  parallel(2, at::in_parallel_region() ? 1 : 2, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t side = begin; side < end; ++side) {
      if (side == 0) build(x, p.pred, p.n, p.d);
      if (side == 1) build(y, p.gt, p.m, p.d);
    }
  });
}

// Carries the points' squared radii (padded with -1) up the boxes.
template <typename T>
void set_reach(Tree<T>& tree, const T* squared_radius) {
  const T* below = squared_radius;
  int64_t children = tree.leaves * LANES;
  for (int h = 0; h < tree.height; ++h) {
    Level<T>& level = tree.level[h];
    const int64_t padded = (level.count + LANES - 1) / LANES * LANES;
    level.reach.allocate(padded);
    for (int64_t b = 0; b < padded; ++b) {
      T most = -1;
      const int64_t stop = std::min(children, (b + 1) * LANES);
      for (int64_t i = b * LANES; i < stop; ++i) most = std::max(most, below[i]);
      level.reach[b] = most;
    }
    below = level.reach.data();
    children = level.count;
  }
}

}  // namespace APML_ISA
}  // namespace apml::cpu
