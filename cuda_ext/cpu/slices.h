// The entries once more, laid out for Sinkhorn. Short rows: eight rows of nearly equal length side by side, one entry of each
// a step. No branch depends on a row's length, and the eight sums are one vector.
#pragma once

#include "support.h"

namespace apml::cpu {
namespace APML_ISA {

// Rows sorted by length together; far enough to even out the lengths, near enough to stay neighbours.
constexpr int64_t WINDOW = 256;

// Rows of more entries than this on average are long enough as they are, and differ too much in length.
constexpr int64_t LONG_ROWS = 64;

template <typename V>
struct Slices {
  int64_t count = 0;
  Growing<int32_t> row;     // (count, 8); the last slice of a window repeats its last row in lanes to spare
  Growing<int64_t> begin;   // (count + 1): first step of each slice
  Growing<int32_t> index;   // (steps, 8)
  Growing<V> value;         // (steps, 8); 0 past the end of a row
};

// The rows [first, last) of a side, longest first; ties stay in order.
template <typename V>
void by_length(const Side<V>& side, int64_t first, int64_t last, int32_t* order) {
  constexpr int BUCKETS = 256;
  int64_t most = 0;
  for (int64_t i = first; i < last; ++i) most = std::max(most, side.stop[i] - side.start[i]);
  int shift = 0;
  while (most >> shift >= BUCKETS) ++shift;
  int32_t at[BUCKETS + 1] = {};
  const auto bucket = [&](int64_t i) { return BUCKETS - 1 - ((side.stop[i] - side.start[i]) >> shift); };
  for (int64_t i = first; i < last; ++i) ++at[bucket(i) + 1];
  for (int b = 0; b < BUCKETS; ++b) at[b + 1] += at[b];
  for (int64_t i = first; i < last; ++i) order[at[bucket(i)]++] = static_cast<int32_t>(i);
}

template <typename V>
void fill_slices(const Side<V>& side, const Chunk<V>& chunk, Slices<V>& out) {
  int32_t order[WINDOW];
  const int64_t windows = (chunk.end - chunk.begin + WINDOW - 1) / WINDOW;
  out.row.reserve(windows * WINDOW);
  out.begin.reserve(windows * WINDOW / LANES + 1);
  out.begin[0] = 0;
  for (int64_t first = chunk.begin; first < chunk.end; first += WINDOW) {
    const int64_t last = std::min(chunk.end, first + WINDOW);
    by_length(side, first, last, order);
    for (int64_t at = 0; at < last - first; at += LANES) {
      int64_t steps = 0;
      int32_t* row = out.row.data() + out.count * LANES;
      for (int k = 0; k < LANES; ++k) {
        row[k] = order[std::min(at + k, last - first - 1)];
        steps = std::max(steps, side.stop[row[k]] - side.start[row[k]]);
      }
      const int64_t begin = out.begin[out.count], end = begin + steps;
      out.index.reserve(end * LANES);
      out.value.reserve(end * LANES);
      for (int k = 0; k < LANES; ++k) {
        const int64_t start = side.start[row[k]], length = side.stop[row[k]] - start;
        const int32_t* index = chunk.index.data() + start;
        const V* value = chunk.value.data() + start;
        int32_t* to_index = out.index.data() + begin * LANES + k;
        V* to_value = out.value.data() + begin * LANES + k;
        for (int64_t s = 0; s < length; ++s) {
          to_index[s * LANES] = index[s];
          to_value[s * LANES] = value[s];
        }
        for (int64_t s = length; s < steps; ++s) {
          to_index[s * LANES] = row[k] < 0 || length == 0 ? 0 : index[length - 1];
          to_value[s * LANES] = V(0);
        }
      }
      out.begin[++out.count] = end;
    }
  }
}

// Eight loads: the gather instruction is slower.
inline Lanes<double> gather(const double* from, const int32_t* index) {
  return Lanes<double>{from[index[0]], from[index[1]], from[index[2]], from[index[3]],
                       from[index[4]], from[index[5]], from[index[6]], from[index[7]]};
}

// One half of an iteration for the rows of a chunk: own <- own / (own * (S other) + eps).
template <typename V>
void rescale_slices(const Slices<V>& slices, double* own, const double* other, double eps) {
  for (int64_t s = 0; s < slices.count; ++s) {
    Lanes<double> sum{};
    for (int64_t step = slices.begin[s]; step < slices.begin[s + 1]; ++step)
      sum += __builtin_convertvector(load(slices.value.data() + step * LANES), Lanes<double>) *
             gather(other, slices.index.data() + step * LANES);
    const int32_t* row = slices.row.data() + s * LANES;
    const Lanes<double> before = gather(own, row);
    const Lanes<double> after = before / (before * sum + eps);
    for (int k = 0; k < LANES; ++k) own[row[k]] = after[k];
  }
}

// Long rows one by one.
template <typename V>
inline double dot(const int32_t* index, const V* value, int64_t count, const double* with) {
  Lanes<double> sum{};
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES)
    sum += __builtin_convertvector(load(value + k), Lanes<double>) * gather(with, index + k);
  for (int a = 0; k < count; ++k, ++a) sum[a] += static_cast<double>(value[k]) * with[index[k]];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

}  // namespace APML_ISA
}  // namespace apml::cpu
