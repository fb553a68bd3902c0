// Step 1 of the fast matching: two random trees, matched part by part (Genest et al., BSP-OT, SIGGRAPH Asia 2025).
#pragma once

#include "../common/bisection.h"
#include "array.h"
#include "parallel.h"

namespace apml::cpu {
namespace APML_ISA {

// A point with what it stands for: a position in the sorted cloud, or a slot.
struct alignas(16) Point {
  float x[3];
  int32_t index;
};

inline float along(const float* direction, const Point& p) {
  return direction[0] * p.x[0] + direction[1] * p.x[1] + direction[2] * p.x[2];
}

// Ascending. Not std::sort: an instance of a template of the standard library is not made for this instruction set, and
// does not take our functions in.
inline void sort_values(float* values, int64_t count) {
  for (int64_t i = 1; i < count; ++i) {
    const float v = values[i];
    int64_t at = i;
    for (; at > 0 && values[at - 1] > v; --at) values[at] = values[at - 1];
    values[at] = v;
  }
}

// Keeps the values in [lo, hi], in order and without branches; their number.
inline int64_t keep_between(float* values, int64_t count, float lo, float hi) {
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float v = values[i];
    values[kept] = v;
    kept += (v >= lo) & (v <= hi);
  }
  return kept;
}

// The value of rank `rank` of `count` (from 0); reorders them. A sorted sample brackets it, or says in which part it is.
inline float value_of_rank(float* values, int64_t count, int64_t rank) {
  constexpr int64_t FEW = 24;
  constexpr float INF = std::numeric_limits<float>::infinity();
  while (count > FEW) {
    const int64_t size = count >= 1024 ? 48 : count >= 128 ? 16 : 8, margin = count >= 1024 ? 5 : count >= 128 ? 2 : 1;
    float sample[48];
    for (int64_t s = 0; s < size; ++s) sample[s] = values[(2 * s + 1) * count / (2 * size)];
    sort_values(sample, size);
    const int64_t at = rank * size / count;
    const float lo = at < margin ? -INF : sample[at - margin], hi = at + margin >= size ? INF : sample[at + margin];
    int32_t below = 0, above = 0;
    for (int64_t i = 0; i < count; ++i) {
      below += values[i] < lo;
      above += values[i] > hi;
    }
    if (rank < below) {
      count = keep_between(values, count, -INF, std::nextafterf(lo, -INF));
    } else if (rank >= count - above) {
      rank -= count - above;
      count = keep_between(values, count, std::nextafterf(hi, INF), INF);
    } else if (lo == hi) {
      return lo;
    } else if (below + above > 0) {
      rank -= below;
      count = keep_between(values, count, lo, hi);
    } else {  // the sample's ends are the least and the largest: many equal values; part them at one of these
      const float pivot = sample[at];
      int32_t less = 0, equal = 0;
      for (int64_t i = 0; i < count; ++i) {
        less += values[i] < pivot;
        equal += values[i] == pivot;
      }
      if (rank < less) {
        count = keep_between(values, count, -INF, std::nextafterf(pivot, -INF));
      } else if (rank < less + equal) {
        return pivot;
      } else {
        rank -= less + equal;
        count = keep_between(values, count, std::nextafterf(pivot, INF), INF);
      }
    }
  }
  sort_values(values, count);
  return values[rank];
}

struct Scratch {
  Array<Point> points;
  Array<float> keys, values;
  explicit Scratch(int64_t size) : points(size + 1), keys(size), values(size) {}
};

// Puts the `rank` points lowest along the direction first. Stable: of equally low ones the first stay low.
inline void split(Point* points, int64_t count, const float* direction, int64_t rank, Scratch& s) {
  if (rank == 0 || rank == count) return;
  float *keys = s.keys.data(), *values = s.values.data();
  for (int64_t i = 0; i < count; ++i) keys[i] = along(direction, points[i]);
  std::memcpy(values, keys, static_cast<size_t>(count) * sizeof(float));
  const float pivot = value_of_rank(values, count, rank);
  int64_t lower = 0;
  for (int64_t i = 0; i < count; ++i) lower += keys[i] < pivot;
  int64_t equal = rank - lower, low = 0, high = 0;
  Point* spare = s.points.data();
  for (int64_t i = 0; i < count; ++i) {
    bool below = keys[i] < pivot;
    if (keys[i] == pivot) below = equal-- > 0;
    const Point p = points[i];
    points[low] = p;
    spare[high] = p;
    low += below;
    high += !below;
  }
  std::memcpy(points + low, spare, static_cast<size_t>(high) * sizeof(Point));
}

// Sorts a few points along the direction, stable.
inline void sort_few(Point* points, int64_t count, const float* direction) {
  float keys[BISECTION_LEAF];
  for (int64_t i = 0; i < count; ++i) {
    const Point p = points[i];
    const float key = along(direction, p);
    int64_t at = i;
    for (; at > 0 && keys[at - 1] > key; --at) {
      keys[at] = keys[at - 1];
      points[at] = points[at - 1];
    }
    keys[at] = key;
    points[at] = p;
  }
}

// Partners are found among a[a_begin ...] and b[b_begin ...]; there are at least as many of b.
struct Node {
  int64_t a_begin, a_count, b_begin, b_count;
  uint64_t key;
};

// How many points of b go to the lower part: as many as of a, or, where b has points to spare, those below the plane
// that splits a, as far as both parts keep enough of them. Call it after splitting a.
inline int64_t rank_of_b(const Point* a, const Point* b, const Node& node, const float* direction, int64_t rank) {
  if (node.b_count == node.a_count) return rank;
  float pivot = std::numeric_limits<float>::infinity();
  for (int64_t i = rank; i < node.a_count; ++i) pivot = std::min(pivot, along(direction, a[node.a_begin + i]));
  int64_t below = 0;
  for (int64_t i = 0; i < node.b_count; ++i) below += along(direction, b[node.b_begin + i]) < pivot;
  return std::min(std::max(below, rank), node.b_count - (node.a_count - rank));
}

// Reorders both clouds of a node and gives its two parts.
inline void split_node(Point* a, Point* b, const Node& node, Scratch& s, Node& lower, Node& upper) {
  const Bisection cut(node.key);
  const int64_t rank = bisection_rank(node.key, node.a_count);
  split(a + node.a_begin, node.a_count, cut.direction, rank, s);
  const int64_t rank_b = rank_of_b(a, b, node, cut.direction, rank);
  split(b + node.b_begin, node.b_count, cut.direction, rank_b, s);
  lower = {node.a_begin, rank, node.b_begin, rank_b, cut.lower};
  upper = {node.a_begin + rank, node.a_count - rank, node.b_begin + rank_b, node.b_count - rank_b, cut.upper};
}

// Few points of a: paired off in the order along a direction, or, where b has points to spare, each with the nearest
// that is left.
inline void match_leaf(Point* a, Point* b, const Node& node, int32_t* partner) {
  Point *x = a + node.a_begin, *y = b + node.b_begin;
  const Bisection cut(node.key);
  sort_few(x, node.a_count, cut.direction);
  if (node.a_count == node.b_count) {
    sort_few(y, node.b_count, cut.direction);
    for (int64_t k = 0; k < node.a_count; ++k) partner[x[k].index] = y[k].index;
    return;
  }
  for (int64_t k = 0; k < node.a_count; ++k) {
    int64_t nearest = k;
    float least = std::numeric_limits<float>::infinity();
    for (int64_t j = k; j < node.b_count; ++j) {
      const float squared = squared_distance(x[k].x, y[j].x);
      if (squared < least) {
        least = squared;
        nearest = j;
      }
    }
    std::swap(y[k], y[nearest]);
    partner[x[k].index] = y[k].index;
  }
}

inline void match_node(Point* a, Point* b, Node node, Scratch& s, int32_t* partner) {
  while (node.a_count > BISECTION_LEAF) {
    Node lower, upper;
    split_node(a, b, node, s, lower, upper);
    match_node(a, b, lower, s, partner);
    node = upper;
  }
  if (node.a_count > 0) match_leaf(a, b, node, partner);
}

// partner[index of a] = index of b for all points of a, each with its own. Reorders both. The first nodes are split one
// after another, the rest are done side by side; what comes out does not depend on the threads.
inline void match_trees(Point* a, int64_t a_count, Point* b, int64_t b_count, uint64_t key, int32_t* partner) {
  constexpr int64_t WIDE = 16, WORTH = 4096;
  Node nodes[2 * WIDE] = {{0, a_count, 0, b_count, key}};
  int64_t number = 1;
  const bool alone = at::in_parallel_region() || at::get_num_threads() == 1 || a_count < WORTH;
  while (!alone && number < WIDE) {
    parallel(number, number, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const Node node = nodes[k];
        Scratch s(node.b_count);
        split_node(a, b, node, s, nodes[k], nodes[number + k]);
      }
    });
    number *= 2;
  }
  parallel(number, number, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      Scratch s(nodes[k].b_count);
      match_node(a, b, nodes[k], s, partner);
    }
  });
}

}  // namespace APML_ISA
}  // namespace apml::cpu
