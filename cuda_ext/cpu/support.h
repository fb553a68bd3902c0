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
  Growing<int32_t> index;
  Growing<V> value;
  Growing<V> other;  // while S is made: the similarity seen from the other side
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

  int64_t entries() const {
    int64_t total = 0;
    for (int64_t c = 0; c < chunks; ++c) total += chunk[c].entries;
    return total;
  }

  // work(row, indices, values, count) for every row, in parallel over the chunks.
  template <typename Work>
  void each(const Work& work) {
    parallel(chunks, chunks, [&](int64_t c, int64_t, int64_t) {
      Chunk<V>& k = chunk[c];
      for (int64_t i = k.begin; i < k.end; ++i)
        work(i, k.index.data() + start[i], k.value.data() + start[i], stop[i] - start[i]);
    });
  }
};

// One side's view of the pair while S is made.
template <typename T>
struct Ends {
  const Tree<T>& tree;
  const Balls& balls;
  const T* squared_radius;
};

// Appends the points of the other cloud within reach of row i.
template <typename T, typename V>
inline void gather_row(const Ends<T>& rows, int64_t i, const Ends<T>& columns, const Walk<T>& walk, Chunk<V>& out) {
  const Tree<T>& points = columns.tree;
  const Lanes<T> x = spread(rows.tree.x[0][i]), y = spread(rows.tree.x[1][i]), z = spread(rows.tree.x[2][i]);
  const Lanes<T> own = spread(rows.squared_radius[i]);
  int32_t* index = out.index.data();
  int64_t at = out.entries;
  for (int64_t v = 0; v < walk.found; ++v) {
    const int32_t base = walk.leaves[v].index * LANES;
    const Lanes<T> dx = x - load(points.x[0].data() + base);
    const Lanes<T> dy = y - load(points.x[1].data() + base);
    const Lanes<T> dz = z - load(points.x[2].data() + base);
    const unsigned hit = bits(dx * dx + dy * dy + dz * dz <= upper(own, load(columns.squared_radius + base)));
    for (int k = 0; k < LANES; ++k) index[at + k] = base + POSITIONS.of[hit][k];
    at += __builtin_popcount(hit);
  }
  out.entries = at;
}

// Similarities of the entries of row i as the row sees them and as the columns see them; returns the row's sum.
template <typename T, typename V>
inline void weigh_row(const Ends<T>& rows, int64_t i, const Ends<T>& columns, const int32_t* index, int64_t count,
                      double* from_row, double* from_column) {
  const double x = rows.tree.x[0][i], y = rows.tree.x[1][i], z = rows.tree.x[2][i];
  const double nearest = rows.balls.nearest[i], inverse_t = rows.balls.inverse_t[i], radius = rows.balls.radius[i];
  const T *px = columns.tree.x[0].data(), *py = columns.tree.x[1].data(), *pz = columns.tree.x[2].data();
  const double *pn = columns.balls.nearest.data(), *pt = columns.balls.inverse_t.data();
  const double* pr = columns.balls.radius.data();
  const double never = std::numeric_limits<double>::infinity();
  for (int64_t k = 0; k < count; ++k) {
    const int32_t j = index[k];
    const double dx = x - px[j], dy = y - py[j], dz = z - pz[j];
    const double d = std::sqrt(dx * dx + dy * dy + dz * dz);
    from_row[k] = d <= radius ? (d - nearest) * inverse_t : never;
    from_column[k] = d <= pr[j] ? (d - pn[j]) * pt[j] : never;
  }
}

template <typename T, typename V>
void fill_rows(const Ends<T>& rows, const Ends<T>& columns, Side<V>& side) {
  const int64_t n = rows.tree.size, m = columns.tree.size;
  const int64_t leaves = rows.tree.leaves;
  side.split(n, chunks_for(leaves, 8));
  parallel(leaves, side.chunks, [&](int64_t c, int64_t begin, int64_t end) {
    Chunk<V>& out = side.chunk[c];
    out.begin = begin * LANES;
    out.end = std::min(n, end * LANES);
    Walk<T> walk;
    Growing<double> from_row, from_column;
    for (int64_t leaf = begin; leaf < end; ++leaf) {
      const Group<T> g(rows.tree, leaf);
      T reach = -1;
      for (int q = 0; q < g.count; ++q) reach = std::max(reach, rows.squared_radius[g.first + q]);
      leaves_within(g, reach, columns.tree, walk);
      const int64_t before = out.entries, room = walk.found * LANES;
      out.index.reserve(before + room * g.count + LANES);
      for (int64_t i = g.first; i < g.first + g.count; ++i) {
        side.start[i] = out.entries;
        gather_row(rows, i, columns, walk, out);
        side.stop[i] = out.entries;
      }
      const int64_t count = out.entries - before;
      out.value.reserve(out.entries);
      out.other.reserve(out.entries);
      from_row.reserve(count + LANES);
      from_column.reserve(count + LANES);
      for (int64_t i = g.first; i < g.first + g.count; ++i)
        weigh_row<T, V>(rows, i, columns, out.index.data() + side.start[i], side.stop[i] - side.start[i],
                        from_row.data() + (side.start[i] - before), from_column.data() + (side.start[i] - before));
      double *own = from_row.data(), *other = from_column.data();
      V *value = out.value.data() + before, *seen = out.other.data() + before;
      for (int64_t k = 0; k < count; ++k) own[k] = exp_minus(own[k]);
      for (int64_t k = 0; k < count; ++k) seen[k] = static_cast<V>(exp_minus(other[k]));
      for (int64_t i = g.first; i < g.first + g.count; ++i) {
        const int64_t from = side.start[i] - before, to = side.stop[i] - before;
        double total = 0;
        int64_t inside = 0;
        for (int64_t k = from; k < to; ++k) {
          total += own[k];
          inside += own[k] > 0;
        }
        const double share = total > 0 ? 1.0 / total : 0.0;
        for (int64_t k = from; k < to; ++k) value[k] = static_cast<V>(0.5 * share * own[k]);
        side.scale[i] = inside == m ? 0.0 : share;
      }
    }
  });
}

// The same entries by column. Stable, so that each column's entries ascend whatever the number of threads.
template <typename V>
void transpose(Side<V>& rows, int64_t m, Side<V>& columns) {
  columns.split(m, rows.chunks);
  Array<int32_t> at;  // (chunks, m): entries of the column in the chunk, then where they go
  at.allocate(rows.chunks * m);
  parallel(rows.chunks, rows.chunks, [&](int64_t c, int64_t, int64_t) {
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
    out.index.reserve(place);
    out.value.reserve(place);
    out.other.reserve(place);
  }
  Array<Chunk<V>*> home(m);
  for (int64_t c = 0; c < columns.chunks; ++c)
    for (int64_t i = columns.chunk[c].begin; i < columns.chunk[c].end; ++i) home[i] = &columns.chunk[c];
  parallel(rows.chunks, rows.chunks, [&](int64_t c, int64_t, int64_t) {
    int32_t* next = at.data() + c * m;
    const Chunk<V>& k = rows.chunk[c];
    for (int64_t i = k.begin; i < k.end; ++i) {
      for (int64_t e = rows.start[i]; e < rows.stop[i]; ++e) {
        const int32_t column = k.index[e];
        Chunk<V>& out = *home[column];
        const int64_t place = columns.start[column] + next[column]++;
        out.index[place] = static_cast<int32_t>(i);
        out.value[place] = k.value[e];
        out.other[place] = k.other[e];
      }
    }
  });
}

// S by row and by column: half of each one-sided softmin.
template <typename T, typename V>
void make_support(const Ends<T>& x, const Ends<T>& y, Side<V>& rows, Side<V>& columns) {
  const int64_t n = x.tree.size, m = y.tree.size;
  fill_rows(x, y, rows);
  transpose(rows, m, columns);
  Array<double> share(m);
  parallel(columns.chunks, columns.chunks, [&](int64_t c, int64_t, int64_t) {
    Chunk<V>& k = columns.chunk[c];
    for (int64_t j = k.begin; j < k.end; ++j) {
      const V* seen = k.other.data() + columns.start[j];
      V* value = k.value.data() + columns.start[j];
      const int64_t count = columns.stop[j] - columns.start[j];
      double total = 0;
      int64_t inside = 0;
      for (int64_t e = 0; e < count; ++e) {
        total += seen[e];
        inside += seen[e] > 0;
      }
      share[j] = total > 0 ? 1.0 / total : 0.0;
      columns.scale[j] = inside == n ? 0.0 : share[j];
      for (int64_t e = 0; e < count; ++e) value[e] = static_cast<V>(value[e] + 0.5 * share[j] * seen[e]);
    }
  });
  parallel(rows.chunks, rows.chunks, [&](int64_t c, int64_t, int64_t) {
    Chunk<V>& k = rows.chunk[c];
    for (int64_t e = 0; e < k.entries; ++e)
      k.value[e] = static_cast<V>(k.value[e] + 0.5 * share[k.index[e]] * k.other[e]);
  });
}

}  // namespace APML_ISA
}  // namespace apml::cpu
