// One pair of clouds, from coordinates to loss and gradients.
#pragma once

#include "adjoint.h"
#include "assign.h"
#include "chamfer.h"
#include "entries.h"
#include "entry.h"
#include "fast_emd.h"

namespace apml::cpu {
namespace APML_ISA {

// float S holds the numbers as long as thresholds are not below this, and nothing has to be absorbed: r and c stay in
// double's range by themselves.
constexpr double LEAST_IN_FLOAT = 1e-35;
inline bool in_range(const Settings& s) { return static_cast<double>(s.iterations) * -std::log10(s.eps) <= 240.0; }

// What the coordinates allow: nothing where one is NaN, infinite or too large to be squared; a search in float32
// where squared distances neither overflow nor lose everything to underflow.
struct Examined {
  bool finite, float_searches;
};
template <typename Given>
Examined examine(const Pair<Given>& p) {
  double most = 0, off = 0;  // v - v is NaN unless v is finite
  for (int64_t i = 0; i < p.n * p.d; ++i) {
    off += p.pred[i] - p.pred[i];
    most = std::abs(double(p.pred[i])) > most ? std::abs(double(p.pred[i])) : most;
  }
  for (int64_t i = 0; i < p.m * p.d; ++i) {
    off += p.gt[i] - p.gt[i];
    most = std::abs(double(p.gt[i])) > most ? std::abs(double(p.gt[i])) : most;
  }
  return {off == 0 && most < 1e150, sizeof(Given) == sizeof(float) && most < 1e15};
}

// NaN in, NaN out: a point without a place has no neighbours, and leaving it out would hide it.
template <typename Given>
double not_finite(const Pair<Given>& p) {
  const Given nan = std::numeric_limits<Given>::quiet_NaN();
  for (int64_t i = 0; p.pred_grad != nullptr && i < p.n * p.d; ++i) p.pred_grad[i] = nan;
  for (int64_t i = 0; p.gt_grad != nullptr && i < p.m * p.d; ++i) p.gt_grad[i] = nan;
  return nan;
}

// The clouds sorted, every point's ball, and S by row and by column.
template <typename T>
struct Prepared {
  Tree<T> x, y;
  Balls bx, by;

  template <typename Given>
  Prepared(const Pair<Given>& p, const Settings& settings) {
    build_both(p, x, y);
    find_balls(x, y, settings, bx);
    find_balls(y, x, settings, by);
  }

  bool uniform() const { return bx.without_ball + by.without_ball > 0; }

  template <typename V>
  void support(Side<V>& rows, Side<V>& columns, Result& result) {
    Array<T> rx, ry;
    squared_radii(bx, x, rx);
    squared_radii(by, y, ry);
    set_reach(y, ry.data());
    try {
      make_support(Ends<T>(x, bx, rx), Ends<T>(y, by, ry), rows, columns);
    } catch (...) {  // out of memory: the message says how far it came
      rows.count();
      result.entries = rows.entries();
      throw;
    }
    result.entries = rows.entries();
  }
};

// One round with the present thresholds: calls finish(rows, columns, scaling), unless these leave out too much and could
// be lowered; they are then, and the result is false.
template <typename V, typename T, typename Finish>
bool round(Prepared<T>& pair, const Settings& settings, bool last, Result& result, const Finish& finish) {
  Side<V> rows, columns;
  pair.support(rows, columns, result);
  Scaling s;
  sinkhorn(rows, columns, pair.bx, pair.by, settings, sizeof(V) == sizeof(double), s);
  result.dropped = dropped_mass(rows, pair.bx, s.r_whole.data(), columns, pair.by, s.c_whole.data());
  const double n = static_cast<double>(rows.size), m = static_cast<double>(columns.size);
  if (!last && result.dropped > settings.tolerance * m) {
    const double most = settings.tolerance * m;  // the plan's mass is m
    const bool lower_rows = lower_thresholds(rows, s.r_whole, columns, s.c_whole, most / n, pair.bx);
    const bool lower_columns = lower_thresholds(columns, s.c_whole, rows, s.r_whole, most / m, pair.by);
    if (lower_rows || lower_columns) return false;
  }
  finish(rows, columns, s);
  return true;
}

// Rounds until the thresholds are small enough. S is float where Given is and the numbers allow it.
template <typename Given, typename T, typename Finish>
void scaled(Prepared<T>& pair, const Settings& settings, Result& result, const Finish& finish) {
  const bool as_float = sizeof(Given) == sizeof(float) && !pair.uniform() && in_range(settings);
  for (int k = 1;; ++k) {
    const bool last = !settings.adaptive() || k == ROUNDS;
    const double least = std::min(pair.bx.least_threshold(), pair.by.least_threshold());
    if (as_float && least >= LEAST_IN_FLOAT ? round<Given>(pair, settings, last, result, finish)
                                            : round<double>(pair, settings, last, result, finish))
      return;
  }
}

template <typename T, typename Given>
void match_in(const Pair<Given>& p, const Settings& settings, Result& result) {
  Prepared<T> pair(p, settings);
  scaled<Given>(pair, settings, result, [&](auto& rows, auto& columns, const Scaling& s) {
    result.loss = sweep(rows, pair.x, pair.bx, s.r, s.r_whole, pair.y, pair.by, s.c, s.c_whole, p.pred_grad, p.d);
    if (p.gt_grad != nullptr)
      sweep(columns, pair.y, pair.by, s.c, s.c_whole, pair.x, pair.bx, s.r, s.r_whole, p.gt_grad, p.d);
  });
}

template <typename T, typename Given>
void differentiate_in(const Pair<Given>& p, const Settings& settings, Result& result) {
  Prepared<T> pair(p, settings);
  if (settings.adaptive()) scaled<Given>(pair, settings, result, [](auto&, auto&, auto&) {});
  Side<double> rows, columns;
  pair.support(rows, columns, result);
  Array<double> x_grad, y_grad;
  differentiate(rows, columns, pair.x, pair.y, pair.bx, pair.by, settings, result, x_grad, y_grad);
  if (!result.in_range) return;
  put_back(pair.x, x_grad, p.pred_grad, p.d);
  put_back(pair.y, y_grad, p.gt_grad, p.d);
}

template <typename T, typename Given>
void plan_in(const Pair<Given>& p, const Settings& settings, PlanSink<Given>& sink, Result& result) {
  Prepared<T> pair(p, settings);
  scaled<double>(pair, settings, result, [&](auto& rows, auto&, const Scaling& s) {
    write_entries(rows, pair.x, s.r, pair.y, s.c, sink);
    write_factors(pair.x, pair.bx, s.r_whole, sink.row_spread, sink.row_scale);
    write_factors(pair.y, pair.by, s.c_whole, sink.column_spread, sink.column_scale);
  });
}

// What entry.h offers.
template <typename Given>
void match(const Pair<Given>& p, const Settings& settings, bool differentiate_plan, Result& result) {
  const Examined is = examine(p);
  if (!is.finite)
    result.loss = not_finite(p);
  else if (differentiate_plan && p.pred_grad != nullptr)
    is.float_searches ? differentiate_in<float>(p, settings, result) : differentiate_in<double>(p, settings, result);
  else
    is.float_searches ? match_in<float>(p, settings, result) : match_in<double>(p, settings, result);
}

template <typename Given>
void plan(const Pair<Given>& p, const Settings& settings, PlanSink<Given>& sink, Result& result) {
  const Examined is = examine(p);
  result.finite = is.finite;
  if (!is.finite) return;
  is.float_searches ? plan_in<float>(p, settings, sink, result) : plan_in<double>(p, settings, sink, result);
}

template <typename Given>
void nearest(const Pair<Given>& p, Given* squared, int64_t* index) {
  examine(p).float_searches ? nearest_in<float>(p, squared, index) : nearest_in<double>(p, squared, index);
}

template <typename Given>
double chamfer(const Pair<Given>& p, bool squares) {
  const Examined is = examine(p);
  if (!is.finite) return not_finite(p);
  return is.float_searches ? chamfer_in<float>(p, squares) : chamfer_in<double>(p, squares);
}

template <typename Given>
constexpr Functions<Given> functions() {
  return {match<Given>, plan<Given>, nearest<Given>, chamfer<Given>, fast_emd<Given>};
}

}  // namespace APML_ISA
}  // namespace apml::cpu
