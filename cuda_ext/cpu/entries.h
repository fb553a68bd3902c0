// The plan's entries in the given order of points.
#pragma once

#include "entry.h"
#include "sinkhorn.h"

namespace apml::cpu {
namespace APML_ISA {

struct Entry1 {
  int64_t column;
  double value;
};
struct ByColumn {
  bool operator()(const Entry1& a, const Entry1& b) const { return a.column < b.column; }
};

template <typename T, typename Given>
void write_entries(Side<double>& rows, const Tree<T>& x, const Array<double>& r, const Tree<T>& y,
                   const Array<double>& c, PlanSink<Given>& sink) {
  const int64_t n = x.size;
  Array<int64_t> first(n + 1);  // by given row: where its entries begin
  first[0] = 0;
  rows.each([&](int64_t i, const int32_t* index, double* value, int64_t count) {
    int64_t kept = 0;
    for (int64_t k = 0; k < count; ++k) {
      value[k] = r[i] * value[k] * c[index[k]];
      kept += value[k] != 0;
    }
    first[x.order[i] + 1] = kept;
  });
  for (int64_t i = 0; i < n; ++i) first[i + 1] += first[i];
  sink.allocate(sink.context, first[n]);
  rows.each_chunk([&](int64_t chunk) {
    Growing<Entry1> row;
    const Chunk<double>& from = rows.chunk[chunk];
    for (int64_t i = from.begin; i < from.end; ++i) {
      int64_t kept = 0;
      row.reserve(rows.stop[i] - rows.start[i]);
      for (int64_t e = rows.start[i]; e < rows.stop[i]; ++e)
        if (from.value[e] != 0) row[kept++] = {y.order[from.index[e]], from.value[e]};
      std::sort(row.data(), row.data() + kept, ByColumn());
      const int64_t at = first[x.order[i]];
      for (int64_t k = 0; k < kept; ++k) {
        sink.rows[at + k] = x.order[i];
        sink.columns[at + k] = row[k].column;
        sink.values[at + k] = static_cast<Given>(row[k].value);
      }
    }
  });
}

// r, and r u for points of the uniform rule.
template <typename T>
void write_factors(const Tree<T>& tree, const Balls& balls, const Array<double>& whole, double* spread, double* scale) {
  for (int64_t i = 0; i < tree.size; ++i) {
    scale[tree.order[i]] = whole[i];
    spread[tree.order[i]] = balls.radius[i] < 0 ? whole[i] * balls.uniform_share : 0.0;
  }
}

}  // namespace APML_ISA
}  // namespace apml::cpu
