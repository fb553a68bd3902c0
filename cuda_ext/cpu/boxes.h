// Distances of eight neighbouring queries, or of the box around some, to boxes and points.
#pragma once

#include <algorithm>

#include "../common/temperature.h"
#include "tree.h"

namespace apml::cpu {
namespace APML_ISA {

// Neighbouring queries and the box around them.
template <typename T>
struct Box {
  int64_t first;  // sorted position of the first
  int count;
  T lo[3], hi[3];

  // Leaves [leaf, leaf + leaves) of the queries' tree, as far as it goes.
  Box(const Tree<T>& tree, int64_t leaf, int64_t leaves) : first(leaf * LANES) {
    count = static_cast<int>(std::min<int64_t>(leaves * LANES, tree.size - first));
    for (int k = 0; k < 3; ++k) {
      lo[k] = tree.level[0].lo[k][leaf];
      hi[k] = tree.level[0].hi[k][leaf];
      for (int64_t l = leaf + 1; l < std::min(leaf + leaves, tree.leaves); ++l) {
        lo[k] = std::min(lo[k], tree.level[0].lo[k][l]);
        hi[k] = std::max(hi[k], tree.level[0].hi[k][l]);
      }
    }
  }
};

// One leaf of queries, a lane each.
template <typename T>
struct Group : Box<T> {
  Lanes<T> x[3];  // lanes past `count` repeat the last query

  Group(const Tree<T>& tree, int64_t leaf) : Box<T>(tree, leaf, 1) {
    for (int k = 0; k < 3; ++k) {
      x[k] = load(tree.x[k].data() + this->first);
      for (int q = this->count; q < LANES; ++q) x[k][q] = x[k][this->count - 1];
    }
  }
};

// Squared distances from the box to the eight boxes of `level` from `first` on; infinity for padding.
template <typename T>
inline Lanes<T> to_boxes(const Box<T>& g, const Level<T>& level, int64_t first) {
  Lanes<T> sum{};
  for (int k = 0; k < 3; ++k) {
    const Lanes<T> above = load(level.lo[k].data() + first) - g.hi[k];
    const Lanes<T> below = g.lo[k] - load(level.hi[k].data() + first);
    const Lanes<T> gap = upper(upper(above, below), Lanes<T>{});
    sum += gap * gap;
  }
  return sum;
}

// How near the boxes' centres are, doubled and squared: the order in which open boxes are worth visiting.
template <typename T>
inline Lanes<T> to_centres(const Box<T>& g, const Level<T>& level, int64_t first) {
  Lanes<T> sum{};
  for (int k = 0; k < 3; ++k) {
    const Lanes<T> apart =
        load(level.lo[k].data() + first) + load(level.hi[k].data() + first) - (g.lo[k] + g.hi[k]);
    sum += apart * apart;
  }
  return sum;
}

// Squared distances from the box to the eight points of a leaf.
template <typename T>
inline Lanes<T> to_points_of(const Box<T>& g, const Tree<T>& tree, int64_t first) {
  Lanes<T> sum{};
  for (int k = 0; k < 3; ++k) {
    const Lanes<T> x = load(tree.x[k].data() + first);
    const Lanes<T> gap = upper(upper(x - g.hi[k], g.lo[k] - x), Lanes<T>{});
    sum += gap * gap;
  }
  return sum;
}

// Squared distances of the eight queries to one point.
template <typename T>
inline Lanes<T> to_point(const Group<T>& g, const Tree<T>& tree, int64_t point) {
  const Lanes<T> x = g.x[0] - tree.x[0][point], y = g.x[1] - tree.x[1][point], z = g.x[2] - tree.x[2][point];
  return x * x + y * y + z * z;
}

template <typename T>
inline double exact_squared(const Tree<T>& a, int64_t i, const Tree<T>& b, int64_t j) {
  const double x[3] = {double(a.x[0][i]), double(a.x[1][i]), double(a.x[2][i])};
  const double y[3] = {double(b.x[0][j]), double(b.x[1][j]), double(b.x[2][j])};
  return squared_distance(x, y);
}

}  // namespace APML_ISA
}  // namespace apml::cpu
