// Memory without initialisation: the pipeline writes everything it reads. Raw, so that no template of the
// standard library is instantiated for an instruction set that the machine may lack (see isa_*.cpp).
#pragma once

#include <cstdint>
#include <cstring>

#include "pool.h"

namespace apml::cpu {
namespace APML_ISA {

// A block of values with room for one vector past the end.
template <typename T>
class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { give(data_, bytes_); }

  void release() {
    give(data_, bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 protected:
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

// A fixed number of values.
template <typename T>
class Array : public Block<T> {
 public:
  Array() = default;
  explicit Array(int64_t size) { allocate(size); }

  void allocate(int64_t size) {
    this->release();
    size_t bytes = static_cast<size_t>(size) * sizeof(T);
    this->data_ = static_cast<T*>(take(bytes));
    this->bytes_ = bytes;
  }
  void allocate(int64_t size, T value) {
    allocate(size);
    for (int64_t i = 0; i < size; ++i) this->data_[i] = value;
  }
};

// Values whose number is found while they are written.
template <typename T>
class Growing : public Block<T> {
 public:
  void reserve(int64_t size) {
    if (static_cast<size_t>(size) * sizeof(T) <= this->bytes_) return;
    const size_t old = this->bytes_;
    size_t bytes = static_cast<size_t>(size) * sizeof(T);
    if (bytes < old + old / 2) bytes = old + old / 2;
    T* grown = static_cast<T*>(take(bytes));
    if (old > 0) std::memcpy(static_cast<void*>(grown), this->data_, old);
    give(this->data_, old);
    this->data_ = grown;
    this->bytes_ = bytes;
  }
};

}  // namespace APML_ISA
}  // namespace apml::cpu
