// The ops `nearest` and `chamfer` on CUDA. The contract is in schema.h.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <tuple>

#include "workspace.h"

namespace apml::cuda {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor> nearest(const at::Tensor& queries_in, const at::Tensor& points_in,
                                           const OptionalTensor& query_lengths, const OptionalTensor& point_lengths) {
  check_clouds("nearest", queries_in, points_in);
  check_lengths("nearest", query_lengths, queries_in);
  check_lengths("nearest", point_lengths, points_in);
  const DeviceGuard guard(queries_in.device());
  const at::Tensor queries = queries_in.contiguous(), points = points_in.contiguous();
  const OptionalTensor query_n = contiguous(query_lengths), point_n = contiguous(point_lengths);
  const Layout layout = layout_of(queries, points, query_n, point_n);

  at::Tensor squared = at::zeros({layout.pairs, layout.pred_points}, queries.options());
  at::Tensor index = at::full({layout.pairs, layout.pred_points}, -1, queries.options().dtype(at::kLong));
  if (layout.pairs == 0 || layout.pred_points == 0 || layout.gt_points == 0) return {squared, index};
  const Stream stream = current_stream();

  with_type(queries, [&](auto t) {
    using T = decltype(t);
    Workspace keep(queries);
    const Tree<T> tree = sorted_tree<T>(keep, layout, queries, points, stream);
    double* distance2 = keep.array<double>(layout.slots());
    int* slot = keep.array<int>(layout.slots());
    one_nearest(tree, Side::PRED, distance2, slot, stream);
    write_nearest(tree, distance2, slot, squared.data_ptr<T>(), index.data_ptr<int64_t>(), stream);
  });
  return {squared, index};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> chamfer(const at::Tensor& pred_in, const at::Tensor& gt_in,
                                                       const OptionalTensor& pred_lengths,
                                                       const OptionalTensor& gt_lengths, bool squared,
                                                       bool gradients) {
  check_clouds("chamfer", pred_in, gt_in);
  check_lengths("chamfer", pred_lengths, pred_in);
  check_lengths("chamfer", gt_lengths, gt_in);
  const DeviceGuard guard(pred_in.device());
  const at::Tensor pred = pred_in.contiguous(), gt = gt_in.contiguous();
  const OptionalTensor pred_n = contiguous(pred_lengths), gt_n = contiguous(gt_lengths);
  const Layout layout = layout_of(pred, gt, pred_n, gt_n);

  const auto options = pred.options();
  at::Tensor losses = at::zeros({layout.pairs}, options);
  at::Tensor pred_grad = at::zeros({layout.pairs, gradients ? layout.pred_points : 0, layout.dims}, options);
  at::Tensor gt_grad = at::zeros({layout.pairs, gradients ? layout.gt_points : 0, layout.dims}, options);
  if (layout.pairs == 0 || layout.pred_points == 0 || layout.gt_points == 0) return {losses, pred_grad, gt_grad};
  const Stream stream = current_stream();

  with_type(pred, [&](auto t) {
    using T = decltype(t);
    Workspace keep(pred);
    const int64_t slots = layout.slots();
    const Tree<T> tree = sorted_tree<T>(keep, layout, pred, gt, stream);
    double *distance2 = keep.array<double>(slots), *slot_loss = keep.array<double>(slots);
    int* slot = keep.array<int>(slots);
    one_nearest(tree, Side::BOTH, distance2, slot, stream);
    at::Tensor chosen, by;
    if (gradients) {
      const at::Tensor unsorted = fresh_bytes(slots * static_cast<int64_t>(sizeof(int64_t)), pred).view(at::kLong);
      chosen_slots(layout, slot, unsorted.data_ptr<int64_t>(), stream);
      std::tie(chosen, by) = at::sort(unsorted, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    }
    chamfer_sweep(tree, distance2, slot, gradients ? chosen.const_data_ptr<int64_t>() : nullptr,
                  gradients ? by.const_data_ptr<int64_t>() : nullptr, squared, slot_loss,
                  gradients ? pred_grad.data_ptr<T>() : nullptr, gradients ? gt_grad.data_ptr<T>() : nullptr, stream);
    chamfer_losses(layout, slot_loss, losses.data_ptr<T>(), stream);
  });
  return {losses, pred_grad, gt_grad};
}

}  // namespace

APML_IMPLEMENT(m) {
  m.impl("nearest", nearest);
  m.impl("chamfer", chamfer);
}

}  // namespace apml::cuda
