// S, the matrix that Sinkhorn scales: rows and columns whose balls overlap, once by row and once by column.
#pragma once

#include "candidates.h"

namespace apml::cpu {
namespace APML_ISA {

// A column's entry on the way from the rows: in one piece, because a row's entries go to as many places.
template <typename V>
struct Sent {
  int32_t row;
  V value, seen;
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
