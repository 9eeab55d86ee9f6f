// SPDX-License-Identifier: Apache-2.0
//
// Steps through the C API as an engine makes them: tensors and scratch are there before, and nothing is allocated
// around the calls. Kernels are idle ones (fakes/idle_kernel.c), or those of the compiler that $KVQ_TEST_COMPILER
// names.
#pragma once

#include <kvq/kvq.h>

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace kvq_test {

struct StepSetup {
  std::string format = "k4c32-v4t16/w32,block";
  int layers = 2, qHeads = 4, kvHeads = 2, dim = 16;
  int sequences = 1;
  int attentionWindow = 0;
  int64_t blocks = 256;
  int threads = 2;
  kvq_parallel_for parallel = nullptr;
  int longest = 64; // new tokens of a sequence in one step
  bool generated = false;
};

class StepDriver {
public:
  explicit StepDriver(const StepSetup &setup);
  ~StepDriver();
  StepDriver(const StepDriver &) = delete;
  // A step in which sequence i gets newTokens[i] tokens.
  void step(const std::vector<int32_t> &newTokens) { ended(plan(newTokens), "plan"); }
  // Steps of `longest` tokens until every sequence has so many.
  void fill(const std::vector<int64_t> &lengths);
  // What a step of these tokens reserves, with which it is then taken back.
  void abort(const std::vector<int32_t> &newTokens);
  int32_t fork(int32_t sequence);
  void replace(int index, int32_t sequence) { sequences_[index] = sequence; } // that takes part from now on
  int32_t sequence(int index) const { return sequences_[index]; }
  void remove(int32_t sequence) { ended(kvq_sequence_remove(cache_, sequence), "remove"); }
  int64_t length(int index) const;
  const std::string &failure() const { return failure_; }

private:
  kvq_error *plan(const std::vector<int32_t> &newTokens);
  kvq_error *open(const std::vector<int32_t> &newTokens, kvq_step **step);
  kvq_error *layers(kvq_step *step, int tokens);
  kvq_tensor rows(std::vector<float> &values, int heads, int tokens) const;
  bool ended(kvq_error *error, const char *what); // keeps the first error

  StepSetup setup_;
  std::string store_; // a folder of its own, or empty
  kvq_context *context_ = nullptr;
  kvq_cache *cache_ = nullptr;
  std::vector<int32_t> sequences_;
  std::vector<float> q_, k_, v_, out_;
  struct Free {
    void operator()(void *memory) const;
  };
  std::unique_ptr<uint8_t[], Free> memory_, workspace_;
  size_t workspaceBytes_ = 0;
  std::string failure_;
};

} // namespace kvq_test
