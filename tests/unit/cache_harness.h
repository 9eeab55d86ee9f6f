// SPDX-License-Identifier: Apache-2.0
//
// A cache behind the C API together with a model of it (cache_model.h): tests say what happens, the harness feeds both
// and compares. Uses device "ref", or the one that $KVQ_TEST_DEVICE names; where that has memory of its own, tensors
// and the cache lie there and are copied back to be looked at.
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

  // With the guards.
  static constexpr size_t kGuard = 256;
  uint8_t *block() const { return block_.get(); }
  size_t total() const { return (bytes_ + 63) / 64 * 64 + 2 * kGuard; }

private:
  struct Free {
    void operator()(uint8_t *memory) const { std::free(memory); }
  };
  size_t bytes_;
  std::unique_ptr<uint8_t[], Free> block_;
};

// Memory where a context's kernels see it: itself on a host, else a copy in the memory of the device.
class Shown {
public:
  Shown(kvq_context *context, const Memory &host, bool onDevice);
  ~Shown();
  Shown(const Shown &) = delete;
  Shown &operator=(const Shown &) = delete;
  uint8_t *data() const;
  // A tensor of the host memory as one of what is shown.
  kvq_tensor of(kvq_tensor tensor) const;
  void fetch();                     // into the host memory
  void clear(void *stream) const;   // on the device alone
  void forget() { isLost_ = true; } // nothing is fetched from now on

private:
  const Memory &host_;
  kvq_buffer *buffer_ = nullptr;
  bool isLost_ = false;
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
  kvq_tensor heads3() const { // of a batch of one, without it
    return {
        memory.data(), dtype, KVQ_CPU, 3, {heads, tokens, channels, 0}, {int64_t(tokens) * channels, channels, 1, 0}};
  }
  int64_t index(int b, int h, int t) const { return ((int64_t(b) * heads + h) * tokens + t) * channels; }
  // A value that the type does not have is cut (bf16) or rounded (f16).
  void set(int64_t i, float value) {
    const auto half = static_cast<_Float16>(value);
    if (dtype == KVQ_F32)
      std::memcpy(memory.data() + 4 * i, &value, 4);
    else if (dtype == KVQ_F16)
      std::memcpy(memory.data() + 2 * i, &half, 2);
    else
      std::memcpy(memory.data() + 2 * i, reinterpret_cast<const uint8_t *>(&value) + 2, 2);
  }
  float get(int64_t i) const {
    float value = 0;
    _Float16 half;
    if (dtype == KVQ_F32) {
      std::memcpy(&value, memory.data() + 4 * i, 4);
    } else if (dtype == KVQ_F16) {
      std::memcpy(&half, memory.data() + 2 * i, 2);
      value = static_cast<float>(half);
    } else {
      std::memcpy(reinterpret_cast<uint8_t *>(&value) + 2, memory.data() + 2 * i, 2);
    }
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
  int attentionWindow = 0;
  float scoreCap = 0;
  bool sinks = false; // random sink logits in every layer
  int threads = 1;
  kvq_parallel_for parallel = nullptr;
  std::string device; // "": $KVQ_TEST_DEVICE, or "ref"
};

inline std::ostream &operator<<(std::ostream &out, const CacheSetup &setup) { return out << setup.text; }

inline CacheSetup small(const std::string &text, const ModelFormat &model) {
  CacheSetup setup;
  setup.text = text;
  setup.model = model;
  return setup;
}

// One format of each rule, with the window in which most tests are worked out.
inline const ModelFormat kBlock = {{4, true, 32}, {4, false, 16}, 32, ModelRule::Block};
inline constexpr const char *kBlockText = "k4c32-v4t16/w32,block";
inline const ModelFormat kSliding = {{4, true, 32}, {2, false, 16}, 32, ModelRule::Sliding};
inline constexpr const char *kSlidingText = "k4c32-v2t16/w32,sliding";
inline const ModelFormat kFlush = {{2, true, 32}, {4, false, 16}, 64, ModelRule::Flush};
inline constexpr const char *kFlushText = "k2c32-v4t16/w64,flush";
inline std::vector<CacheSetup> oneOfEachRule() {
  return {small(kBlockText, kBlock), small(kSlidingText, kSliding), small(kFlushText, kFlush)};
}

inline std::string ruleName(const ::testing::TestParamInfo<CacheSetup> &info) {
  const ModelRule rule = info.param.model.rule;
  return rule == ModelRule::Block ? "Block" : rule == ModelRule::Sliding ? "Sliding" : "Flush";
}

// Tensors of one step, the same for all layers but for their values.
struct StepData {
  std::vector<int32_t> sequences, newTokens, firstTokens; // firstTokens empty: left padding
  int tokens = 0;                                         // T
  bool pastOnly = false;
};

class Harness {
public:
  explicit Harness(const CacheSetup &setup);
  ~Harness();

  kvq_cache_config config() const;
  int32_t add();
  void remove(int32_t sequence);
  int32_t fork(int32_t sequence);
  void crop(int32_t sequence, int64_t tokens, int64_t thawed); // of which the model and the caller expect so many
  std::vector<uint8_t> snapshot(int32_t sequence);
  // The model's is that of `like`, a sequence of this harness or of another.
  int32_t restore(const std::vector<uint8_t> &data, int32_t like, const Harness *of = nullptr);
  void grow(int blocks, int sequences);
  // A whole step of random values through kvq_forward (or kvq_append and kvq_attend, in the order that the step needs);
  // every answer is checked.
  void step(const StepData &data, bool forward = true);
  // `count` tokens for one sequence: a step with all of them.
  void extend(int32_t sequence, int count) { step({{sequence}, {count}, {}, count}); }
  // A step with the values that `seed` gives, by kvq_forward; returns outputs and lse of all layers, checked.
  std::vector<float> answers(const StepData &data, unsigned seed);
  // Plans, appends random values to the last layer alone, and aborts.
  void abort(const StepData &data);
  // The same in parts, for tests of what happens in between.
  kvq_error *plan(const StepData &data, kvq_step **step);
  int64_t planBlocks(const StepData &data);
  struct LayerData {
    Rows q, k, v, out;
    Rows lse; // one channel
  };
  LayerData random(const StepData &data);
  kvq_error *forward(kvq_step *step, int layer, LayerData &data);
  kvq_error *append(kvq_step *step, int layer, const LayerData &data);
  kvq_error *attend(kvq_step *step, int layer, LayerData &data);
  // kvq_read_from into tensors [kv_heads, tokens, channels].
  kvq_error *read(int32_t sequence, int layer, int64_t first, const Rows &k, const Rows &v);
  void record(const StepData &data, int layer, const LayerData &layerData); // tells the model
  void check(const StepData &data, int layer, const LayerData &layerData);
  // Length, frontiers, and K and V of every layer as kvq_read_from gives them, against the model.
  void checkRead(int32_t sequence);
  // K and V of every layer, from the first token on that was not dropped.
  std::vector<float> readAll(int32_t sequence);
  // The cache's memory as it is now, and where the cache has it; and the page of one KV head and block, by its number,
  // in the first (page_c4).
  const uint8_t *bytes() const;
  uint8_t *address() const { return shown->data(); }
  const uint8_t *page(int layer, int32_t block, int head) const;
  void forget() { shown->forget(); } // the device answers nothing more: what is in its memory is lost
  // The same cache in other memory of this size and shape.
  void moveTo(std::unique_ptr<Memory> grown);
  int64_t pageBytes() const;
  int64_t length(int32_t sequence);
  int64_t firstReadable(int32_t sequence);
  kvq_sequence_state state(int32_t sequence);
  std::vector<int32_t> blocks(int32_t sequence);
  kvq_cache_report report();

  CacheSetup setup;
  kvq_context *context = nullptr;
  kvq_cache *cache = nullptr;
  bool onDevice = false; // memory of its own
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Shown> shown; // of it
  std::mt19937 random_{7};
  std::vector<std::vector<ModelHead>> model; // [sequence][layer * kvHeads + head]
  std::vector<float> sinks;                  // [layer][q_heads], -inf: none
  int pageTokens() const;
  int first(const StepData &data, int i) const {
    return data.firstTokens.empty() ? data.tokens - data.newTokens[i] : data.firstTokens[i];
  }

private:
  kvq_error *withWorkspace(kvq_step *step, LayerData &data, const kvq_tensor *k, const kvq_tensor *v, int layer);
  float rounded(float value) const; // to the cache's type
  std::vector<ModelHead> &modelOf(int32_t sequence);
};

} // namespace kvq_test
