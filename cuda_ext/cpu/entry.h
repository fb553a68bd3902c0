// What the pipeline, compiled once for each instruction set, offers to the ops.
#pragma once

#include <cstdint>

#include "../common/temperature.h"

namespace apml::cpu {

// One pair: pred (n, d) and gt (m, d), n, m >= 1, and where its gradients go (null for none).
template <typename Given>
struct Pair {
  const Given *pred, *gt;
  int64_t n, m;
  int d;
  Given *pred_grad, *gt_grad;
};

struct Result {
  double loss = 0, dropped = 0;
  int64_t entries = 0;  // of the support, for the message when memory runs out
};

struct Entry {
  const char* name;
  void (*match_float)(const Pair<float>&, const Settings&, Result&);
  void (*match_double)(const Pair<double>&, const Settings&, Result&);
};

const Entry& entry_default();
const Entry& entry_avx2();
const Entry& entry_avx512();

// The best of them that this machine runs.
const Entry& entry();

}  // namespace apml::cpu
