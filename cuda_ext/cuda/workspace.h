// Scratch memory from PyTorch's allocator, freed together; and sorted clouds in it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "device.h"

namespace apml::cuda {

// Freed memory may serve the next kernel of the same stream while this one runs: the allocator keeps that order.
class Workspace {
 public:
  explicit Workspace(const at::Tensor& like) : like_(like) {}

  template <typename E>
  E* array(int64_t count) {
    kept_.push_back(fresh_bytes(count * static_cast<int64_t>(sizeof(E)), like_));
    return reinterpret_cast<E*>(kept_.back().data_ptr<uint8_t>());
  }

  double* ones(int64_t count) {
    const at::Tensor filled = at::ones({count}, like_.options().dtype(at::kDouble));
    hold(filled);
    return filled.data_ptr<double>();
  }

  void hold(const at::Tensor& tensor) { kept_.push_back(tensor); }
  const at::Tensor& like() const { return like_; }

 private:
  at::Tensor like_;
  std::vector<at::Tensor> kept_;
};

inline std::optional<at::Tensor> contiguous(const std::optional<at::Tensor>& tensor) {
  return tensor ? std::optional<at::Tensor>(tensor->contiguous()) : std::nullopt;
}

inline Layout layout_of(const at::Tensor& pred, const at::Tensor& gt, const std::optional<at::Tensor>& pred_lengths,
                        const std::optional<at::Tensor>& gt_lengths) {
  Layout layout;
  layout.pairs = pred.size(0);
  layout.dims = static_cast<int>(pred.size(2));
  layout.pred_points = static_cast<int>(pred.size(1));
  layout.gt_points = static_cast<int>(gt.size(1));
  layout.pred_lengths = pred_lengths ? pred_lengths->const_data_ptr<int64_t>() : nullptr;
  layout.gt_lengths = gt_lengths ? gt_lengths->const_data_ptr<int64_t>() : nullptr;
  return layout;
}

// Calls use(tag) with the type of a cloud's coordinates.
template <typename Use>
void with_type(const at::Tensor& cloud, Use use) {
  if (cloud.scalar_type() == at::kDouble) {
    use(double{});
  } else {
    use(float{});
  }
}

// As many bits of each coordinate as leave room for the number of the cloud and the mark of padding.
inline int key_bits(int64_t clouds) {
  int bits = 0;
  while ((int64_t{1} << bits) < clouds) ++bits;
  return std::min(20, (62 - bits) / 3);
}

template <typename T>
Tree<T> sorted_tree(Workspace& keep, const Layout& layout, const at::Tensor& pred, const at::Tensor& gt,
                    Stream stream) {
  Tree<T> tree;
  tree.layout = layout;
  tree.frames = keep.array<Frame>(layout.pairs);
  tree.points = keep.array<Point<T>>(layout.slots());
  tree.origin = keep.array<int>(layout.slots());
  tree.clusters = keep.array<Box>(layout.slots() / CLUSTER);
  tree.blocks = keep.array<Box>(layout.blocks());

  Workspace scratch(pred);
  const at::Tensor keys =
      fresh_bytes(layout.slots() * static_cast<int64_t>(sizeof(int64_t)), pred).view(at::kLong);
  order_keys(layout, pred.const_data_ptr<T>(), gt.const_data_ptr<T>(),
             scratch.array<Bounds>(layout.pairs * BOUNDS_PARTS), tree.frames, key_bits(2 * layout.pairs),
             keys.data_ptr<int64_t>(), stream);
  const at::Tensor order = std::get<1>(at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false));
  gather(tree, pred.const_data_ptr<T>(), gt.const_data_ptr<T>(), order.const_data_ptr<int64_t>(), stream);
  return tree;
}

}  // namespace apml::cuda
