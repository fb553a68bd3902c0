// Memory without initialisation: the pipeline writes everything it reads. Raw, so that no template of the
// standard library is instantiated for an instruction set that the machine may lack (see isa.h).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace apml::cpu {
namespace APML_ISA {

// A fixed number of values, aligned to a cache line, with room for one vector past the end.
template <typename T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) { allocate(size); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { std::free(data_); }

  void allocate(int64_t size) {
    std::free(data_);
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 127) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  void allocate(int64_t size, T value) {
    allocate(size);
    for (int64_t i = 0; i < size; ++i) data_[i] = value;
  }
  void release() {
    std::free(data_);
    data_ = nullptr;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

// Values whose number is found while they are written.
template <typename T>
class Growing {
 public:
  Growing() = default;
  Growing(const Growing&) = delete;
  Growing& operator=(const Growing&) = delete;
  ~Growing() { std::free(data_); }

  void reserve(int64_t size) {
    if (size <= capacity_) return;
    const int64_t wanted = size > capacity_ + capacity_ / 2 ? size : capacity_ + capacity_ / 2;
    void* grown = std::realloc(data_, static_cast<size_t>(wanted) * sizeof(T));
    if (grown == nullptr) throw std::bad_alloc();
    data_ = static_cast<T*>(grown);
    capacity_ = wanted;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  int64_t capacity() const { return capacity_; }

 private:
  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace APML_ISA
}  // namespace apml::cpu
