// From neighbouring rows to their entries: who is in reach, and how similar the row and the column find each other.
#pragma once

#include "balls.h"
#include "side.h"

namespace apml::cpu {
namespace APML_ISA {

// What an entry needs to know of one of its points, in one cache line.
struct alignas(64) Mark {
  double x, y, z, nearest, inverse_t, radius;
};

// One side's view of the pair while S is made.
template <typename T>
struct Ends {
  const Tree<T>& tree;
  const Array<T>& squared_radius;
  Array<Mark> marks;

  Ends(const Tree<T>& tree, const Balls& balls, const Array<T>& squared_radius)
      : tree(tree), squared_radius(squared_radius), marks(tree.size) {
    for (int64_t i = 0; i < tree.size; ++i)
      marks[i] = {double(tree.x[0][i]), double(tree.x[1][i]), double(tree.x[2][i]),
                  balls.nearest[i],     balls.inverse_t[i],   balls.radius[i]};
  }
};

// Points that some row of a group may reach, ascending, side by side for the rows to go through.
template <typename T>
struct Candidates {
  int64_t count = 0;
  Growing<int32_t> index;
  Growing<T> x, y, z, squared_radius;  // padded with points infinitely far

  void collect(const Box<T>& g, T row_reach, const Ends<T>& columns, Walk<T>& walk) {
    leaves_within(g, row_reach, columns.tree, walk);
    index.reserve(walk.found * LANES + LANES);
    count = 0;
    for (int64_t v = 0; v < walk.found; ++v) {
      const int32_t first = walk.leaves[v].index * LANES;
      const Lanes<T> limit = upper(spread(row_reach), load(columns.squared_radius.data() + first));
      const unsigned near = at_most(to_points_of(g, columns.tree, first), widened(limit, T()));
      for (int k = 0; k < LANES; ++k) index[count + k] = first + POSITIONS.of[near][k];
      count += __builtin_popcount(near);
    }
    for (auto* a : {&x, &y, &z, &squared_radius}) a->reserve(count + LANES);
    for (int64_t k = 0; k < count; ++k) {
      const int32_t j = index[k];
      x[k] = columns.tree.x[0][j];
      y[k] = columns.tree.x[1][j];
      z[k] = columns.tree.x[2][j];
      squared_radius[k] = columns.squared_radius[j];
    }
    for (int64_t k = count; k < count + LANES; ++k) {
      x[k] = std::numeric_limits<T>::infinity();
      y[k] = z[k] = T(0);
      squared_radius[k] = T(-1);
    }
  }

  // Appends those within reach of row i.
  template <typename V>
  void gather_row(const Ends<T>& rows, int64_t i, Chunk<V>& out) const {
    const Lanes<T> at[3] = {spread(rows.tree.x[0][i]), spread(rows.tree.x[1][i]), spread(rows.tree.x[2][i])};
    const Lanes<T> own = spread(rows.squared_radius[i]);
    int32_t* to = out.index.data() + out.entries;
    for (int64_t k = 0; k < count; k += LANES) {
      const Lanes<T> dx = at[0] - load(x.data() + k), dy = at[1] - load(y.data() + k), dz = at[2] - load(z.data() + k);
      const unsigned hit = at_most(dx * dx + dy * dy + dz * dz, upper(own, load(squared_radius.data() + k)));
      pack(index.data() + k, hit, to);
      to += __builtin_popcount(hit);
    }
    out.entries = to - out.index.data();
  }
};

// A group's entries on the way to their similarities: costs, and both points' nearest, temperature and radius.
struct Weighing {
  Growing<double> cost, nearest[2], inverse_t[2], radius[2];

  void reserve(int64_t count) {
    cost.reserve(count);
    for (int side = 0; side < 2; ++side) {
      nearest[side].reserve(count);
      inverse_t[side].reserve(count);
      radius[side].reserve(count);
    }
  }

  // Squared distances of a row's entries, from place `to` on. The compiler is kept from turning the loads into
  // vector gathers, which are slower for rows this short.
  void collect(const Mark& row, const Mark* columns, const int32_t* index, int64_t count, int64_t to) {
    for (int64_t k = 0; k < count; ++k) {
      int32_t j = index[k];
      asm("" : "+r"(j));
      const Mark& column = columns[j];
      const double dx = row.x - column.x, dy = row.y - column.y, dz = row.z - column.z;
      cost[to + k] = dx * dx + dy * dy + dz * dz;
      nearest[0][to + k] = row.nearest;
      inverse_t[0][to + k] = row.inverse_t;
      radius[0][to + k] = row.radius;
      nearest[1][to + k] = column.nearest;
      inverse_t[1][to + k] = column.inverse_t;
      radius[1][to + k] = column.radius;
    }
  }

  // Leaves the similarities as the rows see them in nearest[0], as the columns see them in nearest[1].
  void weigh(int64_t count) {
    double* d = cost.data();
    for (int64_t k = 0; k < count; ++k) d[k] = std::sqrt(d[k]);
    for (int side = 0; side < 2; ++side) {
      double* from = nearest[side].data();
      const double *inverse = inverse_t[side].data(), *most = radius[side].data();
      for (int64_t k = 0; k < count; ++k) {
        const double similarity = exp_minus((d[k] - from[k]) * inverse[k]);
        from[k] = d[k] <= most[k] ? similarity : 0.0;
      }
    }
  }
};

}  // namespace APML_ISA
}  // namespace apml::cpu
