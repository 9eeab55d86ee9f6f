// SPDX-License-Identifier: Apache-2.0
//
// A cache behind the C API together with a model of it (cache_model.h): tests say what happens, the harness feeds both
// and compares. Uses device "ref", or the one that $KVQ_TEST_DEVICE names.
#pragma once

#include "tests/unit/cache_model.h"

#include <kvq/kvq.h>

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <ostream>
#include <random>
#include <string>

namespace kvq_test {

// Takes ownership of an error and gives its parts.
struct Outcome {
  Outcome(kvq_error *error) : code(kvq_error_code(error)), message(kvq_error_message(error)) { kvq_error_free(error); }
  kvq_code code;
  std::string message;
};
#define KVQ_EXPECT_OK(call)                                                                                            \
  do {                                                                                                                 \
    ::kvq_test::Outcome outcome_(call);                                                                                \
    EXPECT_EQ(outcome_.code, KVQ_OK) << outcome_.message;                                                              \
  } while (0)
#define KVQ_ASSERT_OK(call)                                                                                            \
  do {                                                                                                                 \
    ::kvq_test::Outcome outcome_(call);                                                                                \
    ASSERT_EQ(outcome_.code, KVQ_OK) << outcome_.message;                                                              \
  } while (0)
// The call fails with that code, and its message contains `part`.
#define KVQ_EXPECT_ERROR(call, expected, part)                                                                         \
  do {                                                                                                                 \
    ::kvq_test::Outcome outcome_(call);                                                                                \
    EXPECT_EQ(outcome_.code, expected) << outcome_.message;                                                            \
    EXPECT_NE(outcome_.message.find(part), std::string::npos) << outcome_.message;                                     \
  } while (0)

// 64-byte aligned memory that is filled with a pattern which is a NaN in every element type, and guarded on both sides.
class Memory {
public:
  explicit Memory(size_t bytes) : bytes_(bytes), block_(static_cast<uint8_t *>(std::aligned_alloc(64, total()))) {
    std::memset(block_.get(), 0xff, total());
  }
  uint8_t *data() const { return block_.get() + kGuard; }
  size_t size() const { return bytes_; }
  bool guardsIntact() const {
    const auto intact = [](uint8_t byte) { return byte == 0xff; };
    return std::all_of(block_.get(), data(), intact) && std::all_of(data() + bytes_, block_.get() + total(), intact);
  }

private:
  struct Free {
    void operator()(uint8_t *memory) const { std::free(memory); }
  };
  static constexpr size_t kGuard = 256;
  size_t total() const { return (bytes_ + 63) / 64 * 64 + 2 * kGuard; }
  size_t bytes_;
  std::unique_ptr<uint8_t[], Free> block_;
};

// A tensor [batch, heads, tokens, channels] with guard elements around every row of tokens (as padding).
struct Rows {
  Rows(int batch, int heads, int tokens, int channels, kvq_dtype dtype)
      : batch(batch), heads(heads), tokens(tokens), channels(channels), dtype(dtype),
        memory(size_t(batch) * heads * tokens * channels * (dtype == KVQ_F32 ? 4 : 2)) {}
  kvq_tensor tensor() const {
    return {memory.data(),
            dtype,
            KVQ_CPU,
            4,
            {batch, heads, tokens, channels},
            {int64_t(heads) * tokens * channels, int64_t(tokens) * channels, channels, 1}};
  }
  int64_t index(int b, int h, int t) const { return ((int64_t(b) * heads + h) * tokens + t) * channels; }
  void set(int64_t i, float value) {
    if (dtype == KVQ_F32) {
      std::memcpy(memory.data() + 4 * i, &value, 4);
    } else {
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      const auto high = static_cast<uint16_t>(bits >> 16);
      std::memcpy(memory.data() + 2 * i, &high, 2);
    }
  }
  float get(int64_t i) const {
    uint32_t bits = 0;
    if (dtype == KVQ_F32)
      std::memcpy(&bits, memory.data() + 4 * i, 4);
    else
      std::memcpy(reinterpret_cast<uint8_t *>(&bits) + 2, memory.data() + 2 * i, 2);
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  int batch, heads, tokens, channels;
  kvq_dtype dtype;
  Memory memory;
};

struct CacheSetup {
  std::string text;
  ModelFormat model;
  int layers = 1, qHeads = 2, kvHeads = 1, dk = 16, dv = 16;
  kvq_dtype dtype = KVQ_F32;
  int pageTokens = 0;
  int blocks = 16, sequences = 4;
  int threads = 1;
  kvq_parallel_for parallel = nullptr;
};

inline std::ostream &operator<<(std::ostream &out, const CacheSetup &setup) { return out << setup.text; }

// Tensors of one step, the same for all layers but for their values.
struct StepData {
  std::vector<int32_t> sequences, newTokens, firstTokens; // firstTokens empty: left padding
  int tokens = 0;                                         // T
};

class Harness {
public:
  explicit Harness(const CacheSetup &setup);
  ~Harness();

  kvq_cache_config config() const;
  int32_t add();
  void remove(int32_t sequence);
  // A whole step of random values through kvq_forward (or kvq_append + kvq_attend); every answer is checked.
  void step(const StepData &data, bool forward = true);
  // The same in parts, for tests of what happens in between.
  kvq_error *plan(const StepData &data, kvq_step **step);
  struct LayerData {
    Rows q, k, v, out;
    std::vector<float> lse;
  };
  LayerData random(const StepData &data);
  kvq_error *forward(kvq_step *step, int layer, LayerData &data);
  kvq_error *attend(kvq_step *step, int layer, LayerData &data);
  void record(const StepData &data, int layer, const LayerData &layerData); // tells the model
  void check(const StepData &data, int layer, const LayerData &layerData);
  // K and V of every layer as kvq_read gives them, against the model.
  void checkRead(int32_t sequence);
  std::vector<float> readAll(int32_t sequence);
  int64_t length(int32_t sequence);
  kvq_cache_report report();

  CacheSetup setup;
  kvq_context *context = nullptr;
  kvq_cache *cache = nullptr;
  std::unique_ptr<Memory> memory;
  std::mt19937 random_{7};
  struct Head {
    ModelRows k, v;
  };
  std::vector<std::vector<Head>> model; // [sequence][layer * kvHeads + head]
  int first(const StepData &data, int i) const {
    return data.firstTokens.empty() ? data.tokens - data.newTokens[i] : data.firstTokens[i];
  }
};

} // namespace kvq_test
