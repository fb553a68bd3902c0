// The op `match` on the CPU: pairs side by side when there are many, each pair on all threads when there are few.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../checks.h"
#include "entry.h"
#include "lengths.h"

namespace apml::cpu {
namespace {

template <typename Given>
void match_pair(const Pair<Given>& p, const Settings& settings, Result& result);
template <>
void match_pair<float>(const Pair<float>& p, const Settings& settings, Result& result) {
  entry().match_float(p, settings, result);
}
template <>
void match_pair<double>(const Pair<double>& p, const Settings& settings, Result& result) {
  entry().match_double(p, settings, result);
}

template <typename Given>
void match_all(const at::Tensor& pred, const at::Tensor& gt, const Lengths& pred_n, const Lengths& gt_n,
               const Settings& settings, bool gradients, at::Tensor& losses, at::Tensor& pred_grad,
               at::Tensor& gt_grad, at::Tensor& dropped) {
  const int64_t batch = pred.size(0), n = pred.size(1), m = gt.size(1), d = pred.size(2);
  auto one = [&](int64_t b) {
    Pair<Given> p{pred.const_data_ptr<Given>() + b * n * d, gt.const_data_ptr<Given>() + b * m * d, pred_n[b], gt_n[b],
                  static_cast<int>(d), nullptr, nullptr};
    if (p.n == 0 || p.m == 0) return;
    if (gradients) {
      p.pred_grad = pred_grad.mutable_data_ptr<Given>() + b * n * d;
      p.gt_grad = gt_grad.mutable_data_ptr<Given>() + b * m * d;
    }
    Result result;
    try {
      match_pair(p, settings, result);
    } catch (const std::bad_alloc&) {
      TORCH_CHECK_WITH(OutOfMemoryError, false, "apml::match: out of memory for pair ", b, " of ", p.n, " and ", p.m,
                       " points",
                       result.entries > 0 ? c10::str(" with a support of ", result.entries, " entries") : std::string(),
                       ": raise threshold=", settings.threshold, " or use fewer points");
    }
    losses.mutable_data_ptr<Given>()[b] = static_cast<Given>(result.loss);
    dropped.mutable_data_ptr<double>()[b] = result.dropped;
  };
  if (batch >= at::get_num_threads())
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) one(b);
    });
  else
    for (int64_t b = 0; b < batch; ++b) one(b);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> match(
    const at::Tensor& pred_, const at::Tensor& gt_, const std::optional<at::Tensor>& pred_lengths,
    const std::optional<at::Tensor>& gt_lengths, double p_min, double threshold, int64_t iterations, double eps,
    bool uniform_ties, bool gradients, bool differentiate_plan) {
  check_clouds("match", pred_, gt_);
  check_lengths("match", pred_lengths, pred_);
  check_lengths("match", gt_lengths, gt_);
  TORCH_CHECK(!differentiate_plan, "apml::match: differentiate_plan is not supported yet");
  const at::Tensor pred = pred_.contiguous(), gt = gt_.contiguous();
  const Settings settings{p_min, threshold, iterations, eps, uniform_ties};
  const Lengths pred_n(pred_lengths, pred), gt_n(gt_lengths, gt);
  const int64_t batch = pred.size(0);
  at::Tensor losses = at::zeros({batch}, pred.options());
  at::Tensor dropped = at::zeros({batch}, pred.options().dtype(at::kDouble));
  at::Tensor pred_grad = at::zeros({batch, gradients ? pred.size(1) : 0, pred.size(2)}, pred.options());
  at::Tensor gt_grad = at::zeros({batch, gradients ? gt.size(1) : 0, gt.size(2)}, gt.options());
  AT_DISPATCH_FLOATING_TYPES(pred.scalar_type(), "apml::match", [&] {
    match_all<scalar_t>(pred, gt, pred_n, gt_n, settings, gradients, losses, pred_grad, gt_grad, dropped);
  });
  return {losses, pred_grad, gt_grad, dropped};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) { m.impl("match", apml::cpu::match); }
