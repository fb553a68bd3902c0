// The op `match` on the CPU.
#include <torch/library.h>

#include "../checks.h"
#include "pairs.h"

namespace apml::cpu {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> match(
    const at::Tensor& pred_, const at::Tensor& gt_, const std::optional<at::Tensor>& pred_lengths,
    const std::optional<at::Tensor>& gt_lengths, double p_min, double threshold, int64_t iterations, double eps,
    bool uniform_ties, bool gradients, bool differentiate_plan) {
  check_clouds("match", pred_, gt_);
  check_lengths("match", pred_lengths, pred_);
  check_lengths("match", gt_lengths, gt_);
  const at::Tensor pred = pred_.contiguous(), gt = gt_.contiguous();
  const Lengths pred_n(pred_lengths, pred), gt_n(gt_lengths, gt);
  const Settings settings = checked_settings("match", p_min, threshold, iterations, eps, uniform_ties, pred);
  const int64_t batch = pred.size(0);
  at::Tensor losses = at::zeros({batch}, pred.options());
  at::Tensor dropped = at::zeros({batch}, pred.options().dtype(at::kDouble));
  at::Tensor pred_grad = at::zeros({batch, gradients ? pred.size(1) : 0, pred.size(2)}, pred.options());
  at::Tensor gt_grad = at::zeros({batch, gradients ? gt.size(1) : 0, gt.size(2)}, gt.options());
  AT_DISPATCH_FLOATING_TYPES(pred.scalar_type(), "apml::match", [&] {
    each_pair(batch, [&](int64_t b) {
      Pair<scalar_t> p = pair_of<scalar_t>(pred, gt, pred_n, gt_n, b);
      if (p.n == 0 || p.m == 0) return;
      if (gradients) {
        p.pred_grad = pred_grad.mutable_data_ptr<scalar_t>() + b * pred.size(1) * pred.size(2);
        p.gt_grad = gt_grad.mutable_data_ptr<scalar_t>() + b * gt.size(1) * gt.size(2);
      }
      Result result;
      within_memory("match", b, p.n, p.m, threshold, result.entries,
                    [&] { entry().of<scalar_t>().match(p, settings, differentiate_plan, result); });
      TORCH_CHECK(result.in_range, "apml::match: pair ", b, " cannot be differentiated through iterations=", iterations,
                  " with eps=", eps, ": its scalings leave the range of float64; use fewer iterations, a larger eps or ",
                  "backend='dense'");
      losses.mutable_data_ptr<scalar_t>()[b] = static_cast<scalar_t>(result.loss);
      dropped.mutable_data_ptr<double>()[b] = result.dropped;
    });
  });
  return {losses, pred_grad, gt_grad, dropped};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) { m.impl("match", apml::cpu::match); }
