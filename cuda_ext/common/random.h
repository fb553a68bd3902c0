// Random numbers that are a function of a key: any device and any thread draws the same ones, in any order.
#pragma once

#include "temperature.h"

namespace apml {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on the key's next state.
APML_HD uint64_t mixed(uint64_t key) {
  key += 0x9e3779b97f4a7c15ull;
  key = (key ^ key >> 30) * 0xbf58476d1ce4e5b9ull;
  key = (key ^ key >> 27) * 0x94d049bb133111ebull;
  return key ^ key >> 31;
}

// The key of a part of something that has a key.
APML_HD uint64_t key_of(uint64_t key, uint64_t part) { return mixed(key ^ mixed(part)); }

// A multiple of 2^-23 in [-1, 1).
APML_HD float symmetric(uint64_t key) {
  return static_cast<float>(static_cast<int64_t>(key >> 40) - (int64_t{1} << 23)) * (1.0f / 8388608.0f);
}

}  // namespace apml
