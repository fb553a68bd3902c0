// What the pipeline, compiled once for each instruction set, offers to the ops.
#pragma once

#include <cstdint>

#include "../common/bisection.h"
#include "../common/temperature.h"

namespace apml::cpu {

// One pair: pred (n, d) and gt (m, d), n, m >= 1, and where its gradients go (null for none).
template <typename Given>
struct Pair {
  const Given *pred, *gt;
  int64_t n, m;
  int d;
  Given *pred_grad, *gt_grad;
};

struct Result {
  double loss = 0, dropped = 0;
  int64_t entries = 0;   // of the support; when memory runs out, those made so far
  bool finite = true;    // false: no plan for coordinates that are NaN, infinite or beyond 1e150
  bool in_range = true;  // false: differentiating needs scalings that double cannot hold
};

// Where a plan goes: `allocate` is called once, with the number of entries, and sets rows, columns and values.
template <typename Given>
struct PlanSink {
  void* context;
  void (*allocate)(void* context, int64_t entries);
  int64_t *rows, *columns;
  Given* values;
  double *row_spread, *column_spread, *row_scale, *column_scale;
};

// One assignment (assign.h): x (n, d) and y (m, d), n <= m, coordinates in [0, 1].
struct Assigning {
  const double *x, *y;
  int64_t n, m;
  int d;
  int64_t* columns;      // (n,) the y of each x, -1 for none yet
  double* prices;        // (m,) of the y, >= 0
  double eps;            // infinity at first
  double tolerance;      // of the total above the bound, relative to the bound; 0 for the exact assignment
  int64_t work;          // after so much of it the call ends, finished or not
  double total = 0, bound = 0;
  bool finished = false;
};

template <typename Given>
struct Functions {
  void (*match)(const Pair<Given>&, const Settings&, bool differentiate_plan, Result&);
  void (*plan)(const Pair<Given>&, const Settings&, PlanSink<Given>&, Result&);
  void (*nearest)(const Pair<Given>&, Given* squared, int64_t* index);
  double (*chamfer)(const Pair<Given>&, bool squares);
  double (*fast_emd)(const Pair<Given>&, const FastSettings&, int64_t* pairs);
};

struct Entry {
  const char* name;
  Functions<float> of_float;
  Functions<double> of_double;
  void (*assign)(Assigning&);

  template <typename Given>
  const Functions<Given>& of() const;
};
template <>
inline const Functions<float>& Entry::of<float>() const {
  return of_float;
}
template <>
inline const Functions<double>& Entry::of<double>() const {
  return of_double;
}

const Entry& entry_default();
const Entry& entry_avx2();
const Entry& entry_avx512();

// The best of them that this machine runs.
const Entry& entry();

}  // namespace apml::cpu
