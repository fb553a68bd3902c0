// The entries of a pair's matrix by row, or by column.
#pragma once

#include <memory>

#include "array.h"
#include "parallel.h"

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

}  // namespace APML_ISA
}  // namespace apml::cpu
