// The ops `match` and `plan` on CUDA. The contract is in schema.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

#include "differentiate.h"
#include "solve.h"

namespace apml::cuda {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Order of every op here: checks, guard and stream, sizes, outputs, early return on nothing, the work.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> match(
    const at::Tensor& pred_in, const at::Tensor& gt_in, const OptionalTensor& pred_lengths,
    const OptionalTensor& gt_lengths, double p_min, double threshold, int64_t iterations, double eps,
    bool uniform_ties, bool gradients, bool differentiate_plan) {
  check_clouds("match", pred_in, gt_in);
  check_lengths("match", pred_lengths, pred_in);
  check_lengths("match", gt_lengths, gt_in);
  const DeviceGuard guard(pred_in.device());
  const at::Tensor pred = pred_in.contiguous(), gt = gt_in.contiguous();
  const OptionalTensor pred_n = contiguous(pred_lengths), gt_n = contiguous(gt_lengths);
  const Layout layout = layout_of(pred, gt, pred_n, gt_n);
  const Settings settings = checked_settings("match", p_min, threshold, iterations, eps, uniform_ties, pred);
  const bool differentiate = gradients && differentiate_plan;

  const auto options = pred.options();
  at::Tensor losses = at::zeros({layout.pairs}, options);
  at::Tensor pred_grad = at::zeros({layout.pairs, gradients ? layout.pred_points : 0, layout.dims}, options);
  at::Tensor gt_grad = at::zeros({layout.pairs, gradients ? layout.gt_points : 0, layout.dims}, options);
  at::Tensor dropped = at::zeros({layout.pairs}, options.dtype(at::kDouble));
  if (layout.pairs == 0 || layout.pred_points == 0 || layout.gt_points == 0)
    return {losses, pred_grad, gt_grad, dropped};
  refuse_capture("match");
  if (differentiate) check_range(settings);
  const Stream stream = current_stream();

  with_type(pred, [&](auto t) {
    using T = decltype(t);
    Workspace keep(pred);
    const Tree<T> tree = sorted_tree<T>(keep, layout, pred, gt, stream);
    const Softmins all = softmins(keep, tree, settings, differentiate, stream);
    T* pred_out = gradients ? pred_grad.data_ptr<T>() : nullptr;
    T* gt_out = gradients ? gt_grad.data_ptr<T>() : nullptr;
    double* slot_loss = keep.array<double>(layout.slots());
    const auto sum_up = [&](const auto& solving, T* to_pred, T* to_gt) {
      if (solving.plan.force) uniform_sweep(solving.plan, stream);
      sweep(solving.plan, slot_loss, to_pred, to_gt, solving.long_rows, stream);
      reduce_pairs(solving.plan, slot_loss, losses.data_ptr<T>(), solving.dropped, solving.sums, stream);
    };
    if (!differentiate) {
      scaled(tree, all, settings, dropped, stream,
             [&](Workspace&, const auto& solving) { sum_up(solving, pred_out, gt_out); });
      return;
    }
    if (settings.adaptive()) scaled(tree, all, settings, dropped, stream, [](Workspace&, const auto&) {});
    const auto solving = supported<T, double>(keep, tree, all, settings, dropped, stream);
    Differentiated<T> tape(keep, solving, settings);
    tape.forward();
    sum_up(solving, nullptr, nullptr);
    tape.backward(pred_out, gt_out);
  });
  return {losses, pred_grad, gt_grad, dropped};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> plan(
    const at::Tensor& pred_in, const at::Tensor& gt_in, const OptionalTensor& pred_lengths,
    const OptionalTensor& gt_lengths, double p_min, double threshold, int64_t iterations, double eps,
    bool uniform_ties) {
  check_clouds("plan", pred_in, gt_in);
  check_lengths("plan", pred_lengths, pred_in);
  check_lengths("plan", gt_lengths, gt_in);
  const DeviceGuard guard(pred_in.device());
  const at::Tensor pred = pred_in.contiguous(), gt = gt_in.contiguous();
  const OptionalTensor pred_n = contiguous(pred_lengths), gt_n = contiguous(gt_lengths);
  const Layout layout = layout_of(pred, gt, pred_n, gt_n);
  const Settings settings = checked_settings("plan", p_min, threshold, iterations, eps, uniform_ties, pred);

  const auto wide = pred.options().dtype(at::kDouble), whole = pred.options().dtype(at::kLong);
  at::Tensor indices = at::empty({3, 0}, whole), values = at::empty({0}, pred.options());
  at::Tensor dropped = at::zeros({layout.pairs}, wide);
  at::Tensor row_spread = at::zeros({layout.pairs, layout.pred_points}, wide), row_scale = at::zeros_like(row_spread);
  at::Tensor column_spread = at::zeros({layout.pairs, layout.gt_points}, wide);
  at::Tensor column_scale = at::zeros_like(column_spread);
  if (layout.pairs == 0 || layout.pred_points == 0 || layout.gt_points == 0)
    return {indices, values, dropped, row_spread, column_spread, row_scale, column_scale};
  refuse_capture("plan");
  const Stream stream = current_stream();

  with_type(pred, [&](auto t) {
    using T = decltype(t);
    Workspace keep(pred);
    const Tree<T> tree = sorted_tree<T>(keep, layout, pred, gt, stream);
    const Softmins all = softmins(keep, tree, settings, false, stream);
    scaled(tree, all, settings, dropped, stream, [&](Workspace&, const auto& solving) {
      reduce_pairs(solving.plan, nullptr, static_cast<T*>(nullptr), solving.dropped, solving.sums, stream);
      write_scales(solving.plan, Side::PRED, row_scale.data_ptr<double>(), row_spread.data_ptr<double>(), stream);
      write_scales(solving.plan, Side::GT, column_scale.data_ptr<double>(), column_spread.data_ptr<double>(), stream);

      // Rows come first among the entries, and are half of them.
      const int64_t count = solving.entries / 2;
      at::Tensor keys = at::empty({count}, whole), unsorted = at::empty({count}, pred.options());
      write_plan(solving.plan, keys.data_ptr<int64_t>(), unsorted.data_ptr<T>(), stream);
      const auto [sorted, order] = at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false);
      const at::Tensor rows = sorted.floor_divide(layout.gt_points);
      indices = at::stack({rows.floor_divide(layout.pred_points), rows.remainder(layout.pred_points),
                           sorted.remainder(layout.gt_points)});
      values = unsorted.index_select(0, order);
    });
  });
  return {indices, values, dropped, row_spread, column_spread, row_scale, column_scale};
}

}  // namespace

APML_IMPLEMENT(m) {
  m.impl("match", match);
  m.impl("plan", plan);
}

}  // namespace apml::cuda
