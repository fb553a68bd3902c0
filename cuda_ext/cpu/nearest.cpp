// The ops `nearest` and `chamfer` on the CPU.
#include <torch/library.h>

#include "../checks.h"
#include "pairs.h"

namespace apml::cpu {
namespace {

std::tuple<at::Tensor, at::Tensor> nearest(const at::Tensor& queries_, const at::Tensor& points_,
                                           const std::optional<at::Tensor>& query_lengths,
                                           const std::optional<at::Tensor>& point_lengths) {
  check_clouds("nearest", queries_, points_);
  check_lengths("nearest", query_lengths, queries_);
  check_lengths("nearest", point_lengths, points_);
  const at::Tensor queries = queries_.contiguous(), points = points_.contiguous();
  const Lengths query_n(query_lengths, queries), point_n(point_lengths, points);
  const int64_t batch = queries.size(0), n = queries.size(1);
  at::Tensor squared = at::zeros({batch, n}, queries.options());
  at::Tensor index = at::full({batch, n}, -1, queries.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(queries.scalar_type(), "apml::nearest", [&] {
    each_pair(batch, [&](int64_t b) {
      const Pair<scalar_t> p = pair_of<scalar_t>(queries, points, query_n, point_n, b);
      if (p.n == 0 || p.m == 0) return;
      within_memory("nearest", b, p.n, p.m, 1.0, 0, [&] {
        entry().of<scalar_t>().nearest(p, squared.mutable_data_ptr<scalar_t>() + b * n,
                                       index.mutable_data_ptr<int64_t>() + b * n);
      });
    });
  });
  return {squared, index};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> chamfer(const at::Tensor& pred_, const at::Tensor& gt_,
                                                       const std::optional<at::Tensor>& pred_lengths,
                                                       const std::optional<at::Tensor>& gt_lengths, bool squares,
                                                       bool gradients) {
  check_clouds("chamfer", pred_, gt_);
  check_lengths("chamfer", pred_lengths, pred_);
  check_lengths("chamfer", gt_lengths, gt_);
  const at::Tensor pred = pred_.contiguous(), gt = gt_.contiguous();
  const Lengths pred_n(pred_lengths, pred), gt_n(gt_lengths, gt);
  const int64_t batch = pred.size(0);
  at::Tensor losses = at::zeros({batch}, pred.options());
  at::Tensor pred_grad = at::zeros({batch, gradients ? pred.size(1) : 0, pred.size(2)}, pred.options());
  at::Tensor gt_grad = at::zeros({batch, gradients ? gt.size(1) : 0, gt.size(2)}, gt.options());
  AT_DISPATCH_FLOATING_TYPES(pred.scalar_type(), "apml::chamfer", [&] {
    each_pair(batch, [&](int64_t b) {
      Pair<scalar_t> p = pair_of<scalar_t>(pred, gt, pred_n, gt_n, b);
      if (p.n == 0 || p.m == 0) return;
      if (gradients) {
        p.pred_grad = pred_grad.mutable_data_ptr<scalar_t>() + b * pred.size(1) * pred.size(2);
        p.gt_grad = gt_grad.mutable_data_ptr<scalar_t>() + b * gt.size(1) * gt.size(2);
      }
      within_memory("chamfer", b, p.n, p.m, 1.0, 0, [&] {
        losses.mutable_data_ptr<scalar_t>()[b] = static_cast<scalar_t>(entry().of<scalar_t>().chamfer(p, squares));
      });
    });
  });
  return {losses, pred_grad, gt_grad};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) {
  m.impl("nearest", apml::cpu::nearest);
  m.impl("chamfer", apml::cpu::chamfer);
}
