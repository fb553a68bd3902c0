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

// float S holds the numbers as long as nothing has to be absorbed: r and c stay in double's range by themselves.
inline bool float_suffices(const Settings& s) {
  return s.threshold >= 1e-30 && static_cast<double>(s.iterations) * -std::log10(s.eps) <= 240.0;
}

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

template <typename T, typename V, typename Given>
void match_with(Prepared<T>& pair, const Pair<Given>& p, const Settings& settings, bool absorbing, Result& result) {
  Side<V> rows, columns;
  pair.support(rows, columns, result);
  Scaling s;
  sinkhorn(rows, columns, pair.bx, pair.by, settings, absorbing, s);
  result.dropped = dropped_mass(rows, columns, s.r_whole.data(), s.c_whole.data(), settings.threshold);
  result.loss = sweep(rows, pair.x, pair.bx, s.r, s.r_whole, pair.y, pair.by, s.c, s.c_whole, p.pred_grad, p.d);
  if (p.gt_grad != nullptr)
    sweep(columns, pair.y, pair.by, s.c, s.c_whole, pair.x, pair.bx, s.r, s.r_whole, p.gt_grad, p.d);
}

template <typename T, typename Given>
void match_in(const Pair<Given>& p, const Settings& settings, Result& result) {
  Prepared<T> pair(p, settings);
  if (sizeof(Given) == sizeof(float) && !pair.uniform() && float_suffices(settings))
    match_with<T, float>(pair, p, settings, false, result);
  else
    match_with<T, double>(pair, p, settings, true, result);
}

template <typename T, typename Given>
void differentiate_in(const Pair<Given>& p, const Settings& settings, Result& result) {
  Prepared<T> pair(p, settings);
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
  Side<double> rows, columns;
  pair.support(rows, columns, result);
  Scaling s;
  sinkhorn(rows, columns, pair.bx, pair.by, settings, true, s);
  result.dropped = dropped_mass(rows, columns, s.r_whole.data(), s.c_whole.data(), settings.threshold);
  write_entries(rows, pair.x, s.r, pair.y, s.c, sink);
  write_factors(pair.x, pair.bx, s.r_whole, sink.row_spread, sink.row_scale);
  write_factors(pair.y, pair.by, s.c_whole, sink.column_spread, sink.column_scale);
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
