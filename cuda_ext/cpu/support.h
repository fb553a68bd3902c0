// The entries of S: rows and columns whose balls overlap, once by row and once by column.
#pragma once

#include <memory>

#include "balls.h"

namespace apml::cpu {
namespace APML_ISA {

// Entries of the rows (or columns) [begin, end), one after another.
template <typename V>
struct Chunk {
  int64_t begin = 0, end = 0, entries = 0;
  int64_t before = 0;  // entries of the chunks before this one
  Growing<int32_t> index;
  Growing<V> value;
  Growing<V> other;  // while S is made: the similarity as the other side sees it
};

// A column's entry on the way from the rows: in one piece, because a row's entries go to as many places.
template <typename V>
struct Sent {
  int32_t row;
  V value, seen;
};

// All entries by row (or by column). start and stop count within the row's chunk.
template <typename V>
struct Side {
  int64_t size = 0, chunks = 0;
  std::unique_ptr<Chunk<V>[]> chunk;
  Array<int64_t> start, stop;
  Array<double> scale;  // 1 / softmin denominator; 0 where the ball holds every point, or there is none

  void split(int64_t rows, int64_t into) {
    size = rows;
    chunks = into;
    chunk = std::unique_ptr<Chunk<V>[]>(new Chunk<V>[static_cast<size_t>(into)]);
    start.allocate(rows);
    stop.allocate(rows);
    scale.allocate(rows);
  }

  int64_t entries() const { return before(chunks); }
  int64_t before(int64_t c) const { return c == 0 ? 0 : chunk[c - 1].before + chunk[c - 1].entries; }
  void count() {
    for (int64_t c = 0; c < chunks; ++c) chunk[c].before = before(c);
  }

  // work(chunk) for every chunk, in parallel, the same ones on the same thread each time.
  template <typename Work>
  void each_chunk(const Work& work) const {
    parallel_again(chunks, [&](int64_t c) { return before(c); }, work);
  }

  // work(row, indices, values, count) for every row, in parallel over the chunks.
  template <typename Work>
  void each(const Work& work) {
    each_chunk([&](int64_t c) {
      Chunk<V>& k = chunk[c];
      for (int64_t i = k.begin; i < k.end; ++i)
        work(i, k.index.data() + start[i], k.value.data() + start[i], stop[i] - start[i]);
    });
  }
};

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

// Leaves of rows that share their candidates.
constexpr int64_t TOGETHER = 4;

template <typename T, typename V>
void fill_rows(const Ends<T>& rows, const Ends<T>& columns, Side<V>& side) {
  const int64_t n = rows.tree.size, m = columns.tree.size;
  const int64_t leaves = rows.tree.leaves;
  // Each chunk counts its entries by column, so many columns want few chunks.
  constexpr int64_t MOST_COUNTS = int64_t{1} << 24;
  side.split(n, std::max<int64_t>(1, std::min(chunks_for(leaves, 8), MOST_COUNTS / m)));
  parallel(leaves, side.chunks, [&](int64_t c, int64_t begin, int64_t end) {
    Chunk<V>& out = side.chunk[c];
    out.begin = begin * LANES;
    out.end = std::min(n, end * LANES);
    Walk<T> walk;
    Candidates<T> candidates;
    Weighing weighing;
    for (int64_t leaf = begin; leaf < end; leaf += TOGETHER) {
      const Box<T> g(rows.tree, leaf, std::min(TOGETHER, end - leaf));
      T reach = -1;
      for (int q = 0; q < g.count; ++q) reach = std::max(reach, rows.squared_radius[g.first + q]);
      candidates.collect(g, reach, columns, walk);
      const int64_t before = out.entries;
      out.index.reserve(before + candidates.count * g.count + LANES);
      for (int64_t i = g.first; i < g.first + g.count; ++i) {
        side.start[i] = out.entries;
        candidates.gather_row(rows, i, out);
        side.stop[i] = out.entries;
      }
      const int64_t count = out.entries - before;
      out.value.reserve(out.entries);
      out.other.reserve(out.entries);
      weighing.reserve(count + LANES);
      for (int64_t i = g.first; i < g.first + g.count; ++i)
        weighing.collect(rows.marks[i], columns.marks.data(), out.index.data() + side.start[i],
                         side.stop[i] - side.start[i], side.start[i] - before);
      weighing.weigh(count);
      const double *own = weighing.nearest[0].data(), *other = weighing.nearest[1].data();
      V *value = out.value.data() + before, *seen = out.other.data() + before;
      for (int64_t k = 0; k < count; ++k) seen[k] = static_cast<V>(other[k]);
      for (int64_t i = g.first; i < g.first + g.count; ++i) {
        const int64_t from = side.start[i] - before, to = side.stop[i] - before;
        const double total = sum_of(own + from, to - from);
        const double share = total > 0 ? 1.0 / total : 0.0;
        int64_t inside = 0;
        for (int64_t k = from; k < to; ++k) inside += own[k] > 0;
        for (int64_t k = from; k < to; ++k) value[k] = static_cast<V>(0.5 * share * own[k]);
        side.scale[i] = inside == m ? 0.0 : share;
      }
    }
  });
}

// The same entries by column. Stable, so that each column's entries ascend whatever the number of threads.
template <typename V>
void transpose(Side<V>& rows, int64_t m, Side<V>& columns, Growing<Sent<V>>* sent) {
  columns.split(m, rows.chunks);
  Array<int32_t> at;  // (chunks, m): entries of the column in the chunk, then where they go
  at.allocate(rows.chunks * m);
  rows.each_chunk([&](int64_t c) {
    int32_t* count = at.data() + c * m;
    for (int64_t j = 0; j < m; ++j) count[j] = 0;
    const Chunk<V>& k = rows.chunk[c];
    for (int64_t e = 0; e < k.entries; ++e) ++count[k.index[e]];
  });
  // Columns are cut so that each chunk has its share of the entries; places count within the chunk.
  const int64_t total = rows.entries();
  int64_t j = 0, done = 0;
  for (int64_t c = 0; c < columns.chunks; ++c) {
    Chunk<V>& out = columns.chunk[c];
    out.begin = j;
    const int64_t until = total * (c + 1) / columns.chunks;
    int64_t place = 0;
    for (; j < m && (c + 1 == columns.chunks || done + place < until); ++j) {
      columns.start[j] = place;
      for (int64_t r = 0; r < rows.chunks; ++r) {
        const int32_t here = at[r * m + j];
        at[r * m + j] = static_cast<int32_t>(place - columns.start[j]);
        place += here;
      }
      columns.stop[j] = place;
    }
    out.end = j;
    out.entries = place;
    done += place;
    sent[c].reserve(place);
  }
  Array<Sent<V>*> home(m);  // where each column's entries begin
  for (int64_t c = 0; c < columns.chunks; ++c)
    for (int64_t i = columns.chunk[c].begin; i < columns.chunk[c].end; ++i) home[i] = sent[c].data() + columns.start[i];
  rows.each_chunk([&](int64_t c) {
    int32_t* next = at.data() + c * m;
    const Chunk<V>& k = rows.chunk[c];
    for (int64_t i = k.begin; i < k.end; ++i) {
      for (int64_t e = rows.start[i]; e < rows.stop[i]; ++e) {
        const int32_t column = k.index[e];
        home[column][next[column]++] = {static_cast<int32_t>(i), k.value[e], k.other[e]};
      }
    }
  });
}

// S by row and by column: half of each one-sided softmin.
template <typename T, typename V>
void make_support(const Ends<T>& x, const Ends<T>& y, Side<V>& rows, Side<V>& columns) {
  const int64_t n = x.tree.size, m = y.tree.size;
  fill_rows(x, y, rows);
  rows.count();
  std::unique_ptr<Growing<Sent<V>>[]> sent(new Growing<Sent<V>>[static_cast<size_t>(rows.chunks)]);
  transpose(rows, m, columns, sent.get());
  columns.count();
  Array<double> share(m);
  columns.each_chunk([&](int64_t c) {
    Chunk<V>& k = columns.chunk[c];
    k.index.reserve(k.entries);
    k.value.reserve(k.entries);
    Growing<double> seen;
    for (int64_t j = k.begin; j < k.end; ++j) {
      const Sent<V>* from = sent[c].data() + columns.start[j];
      int32_t* index = k.index.data() + columns.start[j];
      V* value = k.value.data() + columns.start[j];
      const int64_t count = columns.stop[j] - columns.start[j];
      seen.reserve(count);
      int64_t inside = 0;
      for (int64_t e = 0; e < count; ++e) {
        seen[e] = from[e].seen;
        inside += from[e].seen > 0;
      }
      const double total = sum_of(seen.data(), count);
      share[j] = total > 0 ? 1.0 / total : 0.0;
      columns.scale[j] = inside == n ? 0.0 : share[j];
      for (int64_t e = 0; e < count; ++e) {
        index[e] = from[e].row;
        value[e] = static_cast<V>(from[e].value + 0.5 * share[j] * from[e].seen);
      }
    }
    sent[c].release();
  });
  rows.each_chunk([&](int64_t c) {
    Chunk<V>& k = rows.chunk[c];
    for (int64_t e = 0; e < k.entries; ++e)
      k.value[e] = static_cast<V>(k.value[e] + 0.5 * share[k.index[e]] * k.other[e]);
  });
}

}  // namespace APML_ISA
}  // namespace apml::cpu
