// The op `fast_emd` on the CPU.
#include <torch/library.h>

#include "../checks.h"
#include "pairs.h"

namespace apml::cpu {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> fast_emd(
    const at::Tensor& pred_, const at::Tensor& gt_, const std::optional<at::Tensor>& pred_lengths,
    const std::optional<at::Tensor>& gt_lengths, int64_t seed, int64_t restarts, int64_t neighbours, int64_t passes,
    bool squares, bool injective, bool gradients) {
  check_clouds("fast_emd", pred_, gt_);
  check_lengths("fast_emd", pred_lengths, pred_);
  check_lengths("fast_emd", gt_lengths, gt_);
  const FastSettings settings{static_cast<uint64_t>(seed), restarts, neighbours, passes, squares, injective};
  check_settings("fast_emd", settings);
  const at::Tensor pred = pred_.contiguous(), gt = gt_.contiguous();
  const Lengths pred_n(pred_lengths, pred), gt_n(gt_lengths, gt);
  const int64_t batch = pred.size(0), most = std::max(pred.size(1), gt.size(1));
  at::Tensor losses = at::zeros({batch}, pred.options());
  at::Tensor pred_grad = at::zeros({batch, gradients ? pred.size(1) : 0, pred.size(2)}, pred.options());
  at::Tensor gt_grad = at::zeros({batch, gradients ? gt.size(1) : 0, gt.size(2)}, gt.options());
  at::Tensor pairs = at::full({batch, most, 2}, -1, pred.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(pred.scalar_type(), "apml::fast_emd", [&] {
    each_pair(batch, [&](int64_t b) {
      Pair<scalar_t> p = pair_of<scalar_t>(pred, gt, pred_n, gt_n, b);
      if (p.n == 0 || p.m == 0) return;
      if (gradients) {
        p.pred_grad = pred_grad.mutable_data_ptr<scalar_t>() + b * pred.size(1) * pred.size(2);
        p.gt_grad = gt_grad.mutable_data_ptr<scalar_t>() + b * gt.size(1) * gt.size(2);
      }
      within_memory("fast_emd", b, p.n, p.m, 1.0, 0, [&] {
        losses.mutable_data_ptr<scalar_t>()[b] = static_cast<scalar_t>(
            entry().of<scalar_t>().fast_emd(p, settings, pairs.mutable_data_ptr<int64_t>() + b * most * 2));
      });
    });
  });
  return {losses, pred_grad, gt_grad, pairs};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) { m.impl("fast_emd", apml::cpu::fast_emd); }
