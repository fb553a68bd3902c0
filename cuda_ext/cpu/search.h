// Neighbour search for eight queries at a time, which are neighbours themselves: they share one walk of the tree.
#pragma once

#include "boxes.h"

namespace apml::cpu {
namespace APML_ISA {

// A search in float32 must not lose what double would find: squared distances are off by a few units in the last
// place, and boxes and limits are widened by more than that. The absolute part covers underflow.
template <typename T>
struct Slack {
  static constexpr T relative = T(0), absolute = T(0);
};
template <>
struct Slack<float> {
  static constexpr float relative = 2e-6f, absolute = 1e-37f;
};
template <>
struct Slack<double> {
  static constexpr double relative = 1e-14, absolute = 0;
};
template <typename V, typename T>
inline V widened(V limit, T /*tag*/) {
  return limit * (T(1) + Slack<T>::relative) + Slack<T>::absolute;
}

template <typename T>
struct Bits;
template <>
struct Bits<float> {
  typedef uint32_t Type;
  static constexpr uint32_t LAST = 0xfffffff8u;
};
template <>
struct Bits<double> {
  typedef uint64_t Type;
  static constexpr uint64_t LAST = 0xfffffffffffffff8ull;
};

// The lanes of `open`, smallest value first. Values are not negative, so their bits sort like whole numbers; the
// lane takes the place of the last three. A sorting network: branches here would be mispredicted half the time.
template <typename T>
inline void nearest_first(Lanes<T> value, unsigned open, int* lane) {
  typename Bits<T>::Type key[LANES];
  std::memcpy(key, &value, sizeof(key));
  for (int k = 0; k < LANES; ++k) key[k] = open >> k & 1 ? (key[k] & Bits<T>::LAST) | k : Bits<T>::LAST | k;
  constexpr int PAIRS[19][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
                                {4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
#pragma GCC unroll 19
  for (int p = 0; p < 19; ++p) {
    const auto a = key[PAIRS[p][0]], b = key[PAIRS[p][1]];
    key[PAIRS[p][0]] = a < b ? a : b;
    key[PAIRS[p][1]] = a < b ? b : a;
  }
  for (int k = 0; k < LANES; ++k) lane[k] = static_cast<int>(key[k] & 7);
}

// The two nearest points of one query. Squared distances in double, positions in the sorted cloud.
struct Two {
  double first = std::numeric_limits<double>::infinity(), second = std::numeric_limits<double>::infinity();
  int32_t at_first = -1, at_second = -1;

  // Of equally near points the one that came first in the given cloud wins.
  void offer(double squared, int32_t at, const int32_t* order) {
    if (squared < first || (squared == first && at_first >= 0 && order[at] < order[at_first])) {
      second = first;
      at_second = at_first;
      first = squared;
      at_first = at;
    } else if (squared < second || (squared == second && at_second >= 0 && order[at] < order[at_second])) {
      second = squared;
      at_second = at;
    }
  }
};

// What a walk needs besides the tree; kept between groups so that nothing is allocated.
template <typename T>
struct Walk {
  struct Node {
    T distance;
    int32_t height, index;
  };
  struct Leaf {
    T distance;
    int32_t index;
  };
  Node stack[MAX_HEIGHT * LANES + LANES];
  Growing<Leaf> leaves;
  int64_t found = 0;
};

// The two nearest of `points` for the queries of one leaf: near boxes first, until none is nearer than the worst
// second-best of the group. K > 1 neighbours are wanted even if only the first is read: `wanted` is 1 or 2.
template <typename T>
void two_nearest(const Tree<T>& queries, int64_t leaf, const Tree<T>& points, int wanted, Walk<T>& walk, Two* out) {
  const Group<T> g(queries, leaf);
  const T inf = std::numeric_limits<T>::infinity();
  Lanes<T> best = spread(inf), second = spread(inf);
  T bound = inf;
  walk.found = 0;
  int top = 0;
  walk.stack[top++] = {T(0), points.height, 0};
  while (top > 0) {
    const auto node = walk.stack[--top];
    if (node.distance > bound) continue;
    const int64_t first = int64_t{node.index} * LANES;
    const Level<T>& level = points.level[node.height - 1];
    const Lanes<T> d = to_boxes(g, level, first);
    unsigned open = at_most(d, spread(bound));
    const int room = static_cast<int>(std::min<int64_t>(LANES, level.count - first));
    open &= (1u << room) - 1;
    int child[LANES];
    const int number = __builtin_popcount(open);
    nearest_first<T>(to_centres(g, level, first), open, child);
    if (node.height > 1) {
      for (int c = number; c-- > 0;)
        walk.stack[top++] = {d[child[c]], node.height - 1, static_cast<int32_t>(first + child[c])};
      continue;
    }
    walk.leaves.reserve(walk.found + LANES);
    for (int c = 0; c < number; ++c) {
      if (d[child[c]] > bound) continue;
      const int64_t at = first + child[c];
      Lanes<T> nearest = spread(inf);
      for (int k = 0; k < LANES; ++k) {
        const Lanes<T> squared = to_point(g, points, at * LANES + k);
        const Lanes<T> worse = upper(best, squared);
        best = lower(best, squared);
        second = lower(second, worse);
        nearest = lower(nearest, squared);
      }
      // Only leaves that came near some query's best are looked at again below.
      if (at_most(nearest, widened(wanted == 1 ? best : second, T())) != 0)
        walk.leaves[walk.found++] = {d[child[c]], static_cast<int32_t>(at)};
      bound = widened(largest<T>(wanted == 1 ? best : second), T());
    }
  }

  // Settle the two in double, among the few points that rounding leaves in doubt.
  const Lanes<T> limit = widened(wanted == 1 ? best : second, T());
  const int32_t* order = points.order.data();
  for (int q = 0; q < LANES; ++q) out[q] = Two();
  for (int64_t v = 0; v < walk.found; ++v) {
    if (walk.leaves[v].distance > bound) continue;
    const int64_t start = int64_t{walk.leaves[v].index} * LANES;
    uint64_t close = 0;  // bit 8 p + q: point p is in doubt for query q; padding is infinitely far
    for (int p = 0; p < LANES; ++p) close |= uint64_t{at_most(to_point(g, points, start + p), limit)} << (p * LANES);
    for (; close != 0; close &= close - 1) {
      const int bit = __builtin_ctzll(close), q = bit % LANES;
      const int64_t p = start + bit / LANES;
      if (q >= g.count || p >= points.size) continue;
      // Among many equal points nothing can be nearer than 0, and all that is left is the first of them.
      if (wanted == 1 ? out[q].first == 0 && order[p] > order[out[q].at_first] : out[q].second == 0) continue;
      out[q].offer(exact_squared(queries, g.first + q, points, p), static_cast<int32_t>(p), order);
    }
  }
}

// Leaves of `points` that may hold a point within max(row_reach, the point's own radius) of the box, ascending.
template <typename T>
void leaves_within(const Box<T>& g, T row_reach, const Tree<T>& points, Walk<T>& walk) {
  walk.found = 0;
  int top = 0;
  walk.stack[top++] = {T(0), points.height, 0};
  while (top > 0) {
    const auto node = walk.stack[--top];
    const int64_t first = int64_t{node.index} * LANES;
    const Level<T>& level = points.level[node.height - 1];
    const Lanes<T> d = to_boxes(g, level, first);
    unsigned open = at_most(d, widened(upper(load(level.reach.data() + first), spread(row_reach)), T()));
    const int room = static_cast<int>(std::min<int64_t>(LANES, level.count - first));
    open &= (1u << room) - 1;
    if (node.height > 1) {
      for (; open != 0; open &= ~(1u << (31 - __builtin_clz(open))))
        walk.stack[top++] = {T(0), node.height - 1, static_cast<int32_t>(first + 31 - __builtin_clz(open))};
      continue;
    }
    walk.leaves.reserve(walk.found + LANES);
    for (; open != 0; open &= open - 1)
      walk.leaves[walk.found++] = {T(0), static_cast<int32_t>(first + __builtin_ctz(open))};
  }
}

}  // namespace APML_ISA
}  // namespace apml::cpu
