// The kernels as plain functions of pointers, so that host code needs no CUDA header and kernels no PyTorch header.
// All work goes to `stream`; nothing waits. Templates are instantiated for float and double.
#pragma once

#include "layout.h"

namespace apml::cuda {

using Stream = void*;  // a cudaStream_t

constexpr int BOUNDS_PARTS = 128;  // a pair's bounds are gathered in as many parts

// --- order.cu -------------------------------------------------------------------------------------------------
// Frames (B,) and the keys (slots,) that sort all clouds at once, `bits` of each coordinate; parts is scratch
// (B, BOUNDS_PARTS).
template <typename T>
void order_keys(const Layout&, const T* pred, const T* gt, Bounds* parts, Frame* frames, int bits, int64_t* keys,
                Stream);
// Points, origin and boxes of the tree, from the sorting permutation (slots,).
template <typename T>
void gather(const Tree<T>&, const T* pred, const T* gt, const int64_t* order, Stream);

// --- nearest.cu -----------------------------------------------------------------------------------------------
// The nearest point of the other cloud: squared distance (slots,) and its slot, or 0 and -1. Of equally near points
// the one that came first in its cloud.
template <typename T>
void one_nearest(const Tree<T>&, Side, double* squared, int* nearest, Stream);
// The rule of every slot but its total, its threshold (slots,), and from them the reach of points, clusters and blocks.
// `spread` (slots,) is wanted for uniform ties, `gap` and `nearest` (slots,) for differentiating the plan; null
// otherwise.
template <typename T>
void two_nearest(const Tree<T>&, const Settings&, Rule*, double* threshold, double* spread, double* gap,
                 Nearest* nearest, Stream);

// --- support.cu -----------------------------------------------------------------------------------------------
template <typename T>
void count_support(const Tree<T>&, int* counts, Stream);
template <typename T>
void fill_support(const Tree<T>&, const int64_t* offsets, int* partner, Stream);
// Totals of the rules, shares and S. `long_rows`: more than about 32 entries a slot.
template <typename T, typename V>
void similarities(const Plan<T, V>&, bool long_rows, Stream);

// --- sinkhorn.cu ----------------------------------------------------------------------------------------------
// r (Side::PRED) or c (Side::GT) of one iteration.
template <typename T, typename V>
void half_step(const Plan<T, V>&, Side, bool long_rows, Stream);
// Moves r and c into S and into `absorbed`.
template <typename T, typename V>
void absorb(const Plan<T, V>&, bool long_rows, Stream);

// Keeps or brings back a state of r and c.
void copy_doubles(double* to, const double* from, int64_t count, Stream);

// --- sweep.cu -------------------------------------------------------------------------------------------------
// The uniform part's loss and pull of every slot.
template <typename T, typename V>
void uniform_sweep(const Plan<T, V>&, Stream);
// Loss of every slot, and gradients in the order the clouds were given (null: not wanted).
template <typename T, typename V>
void sweep(const Plan<T, V>&, double* slot_loss, T* pred_grad, T* gt_grad, bool long_rows, Stream);
// Loss of every pair, what the thresholds may have dropped (B,) of each, and the sums (B, 2) of its r and of its c.
template <typename T, typename V>
void reduce_pairs(const Plan<T, V>&, const double* slot_loss, T* losses, double* dropped, double* sums, Stream);
// Lowers the thresholds of pairs that dropped more than this share of their mass, with radii and reach. `state`, zero before: [0] becomes 1 if
// there were any, [1] the bits of the largest -log(threshold), a float.
template <typename T, typename V>
void lower_thresholds(const Plan<T, V>&, double share, const double* dropped, const double* sums, int* state, Stream);
// Entries as (pair, pred point, gt point) in one number, (pair * N + i) * M + j, and their values in the plan.
template <typename T, typename V>
void write_plan(const Plan<T, V>&, int64_t* keys, T* values, Stream);
// Scale and scale times spread of every point of a side, (B, N) or (B, M), in the order given.
template <typename T, typename V>
void write_scales(const Plan<T, V>&, Side, double* scale, double* spread, Stream);

// --- adjoint.cu -----------------------------------------------------------------------------------------------
// Derivatives by S, log r and log c of the loss with the final scaling.
template <typename T>
void adjoint_start(const Adjoint<T>&, bool long_rows, Stream);
// One iteration backwards: `before` and `after` are the scale (slots,) around it.
template <typename T>
void adjoint_step(const Adjoint<T>&, const double* before, const double* after, bool long_rows, Stream);
// From derivatives by S to those by the points.
template <typename T>
void adjoint_finish(const Adjoint<T>&, T* pred_grad, T* gt_grad, bool long_rows, Stream);

// --- chamfer_sweep.cu -----------------------------------------------------------------------------------------
// Slots (slots,) of nearest points counted over all clouds, or -1: what sorts the slots by whom they chose.
void chosen_slots(const Layout&, const int* nearest, int64_t* chosen, Stream);
// Loss of every slot and gradients in the order given. `chosen` sorted, with its permutation `by`, tells who chose a
// slot.
template <typename T>
void chamfer_sweep(const Tree<T>&, const double* distance2, const int* nearest, const int64_t* chosen,
                   const int64_t* by, bool squared, double* slot_loss, T* pred_grad, T* gt_grad, Stream);
template <typename T>
void chamfer_losses(const Layout&, const double* slot_loss, T* losses, Stream);
// Nearest of the pred clouds in the order given: squared (B, N) and index (B, N).
template <typename T>
void write_nearest(const Tree<T>&, const double* distance2, const int* nearest, T* squared, int64_t* index, Stream);

}  // namespace apml::cuda
