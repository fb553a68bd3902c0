// Sinkhorn recorded by a few of its states and run backwards; the kernels are in adjoint.cu.
//
// Of I iterations about sqrt(I) states (r, c) are kept; backwards, the iterations between two of them are run again,
// which gives the same bits.
#pragma once

#include <cmath>

#include "solve.h"

namespace apml::cuda {

inline void check_range(const Settings& settings) {
  TORCH_CHECK(stays_in_range(settings), "apml::match: the plan cannot be differentiated through iterations=",
              settings.iterations, " with eps=", settings.eps, " on CUDA: iterations * log10(1 / eps) must not exceed ",
              RANGE, ", or the scalings may leave the range of float64; use fewer iterations");
}

template <typename T>
class Differentiated {
 public:
  Differentiated(Workspace& keep, const Solving<T, double>& solving, const Settings& settings)
      : keep_(keep), solving_(solving), iterations_(settings.iterations) {
    slots_ = solving.plan.tree.layout.slots();
    stride_ = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(iterations_)))));
    states_ = keep.array<double>(((iterations_ + stride_ - 1) / stride_ + 1) * slots_);
  }

  void forward() {
    for (int64_t step = 0; step < iterations_; ++step) {
      if (step % stride_ == 0) copy(states_ + step / stride_ * slots_, solving_.plan.scale);
      iterate(solving_.plan);
    }
  }

  void backward(T* pred_grad, T* gt_grad) {
    Adjoint<T> adjoint{};
    adjoint.plan = solving_.plan;
    adjoint.gap = solving_.softmins.gap;
    adjoint.nearest = solving_.softmins.nearest;
    const int64_t bytes = sizeof(int) + 2 * sizeof(double);
    adjoint.values_bar = support_array<double>(keep_, solving_.entries, bytes, solving_.plan.tree.layout);
    adjoint.log_bar = keep_.array<double>(slots_);
    adjoint.product_bar = keep_.array<double>(slots_);
    adjoint.weight = keep_.array<double>(slots_);
    adjoint.gap_bar = keep_.array<double>(slots_);
    adjoint_start(adjoint, solving_.long_rows, solving_.stream);

    Plan<T, double> again = solving_.plan;  // the same plan at an earlier state
    again.scale = keep_.array<double>(slots_);
    double* between = keep_.array<double>((stride_ + 1) * slots_);
    for (int64_t first = (iterations_ - 1) / stride_ * stride_; iterations_ > 0 && first >= 0; first -= stride_) {
      const int64_t count = std::min(stride_, iterations_ - first);
      copy(again.scale, states_ + first / stride_ * slots_);
      for (int64_t k = 0; k <= count; ++k) {
        copy(between + k * slots_, again.scale);
        if (k < count) iterate(again);
      }
      for (int64_t k = count; k > 0; --k)
        adjoint_step(adjoint, between + (k - 1) * slots_, between + k * slots_, solving_.long_rows, solving_.stream);
    }
    adjoint_finish(adjoint, pred_grad, gt_grad, solving_.long_rows, solving_.stream);
  }

 private:
  void iterate(const Plan<T, double>& plan) {
    half_step(plan, Side::PRED, solving_.long_rows, solving_.stream);
    half_step(plan, Side::GT, solving_.long_rows, solving_.stream);
  }

  void copy(double* to, const double* from) { copy_doubles(to, from, slots_, solving_.stream); }

  Workspace& keep_;
  Solving<T, double> solving_;
  int64_t iterations_, slots_, stride_;
  double* states_;
};

}  // namespace apml::cuda
