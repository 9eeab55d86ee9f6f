// SPDX-License-Identifier: Apache-2.0
//
// What one decode step of one layer costs through the C API, one thread: the whole step (plan, append, attend, commit)
// at several lengths, and appending without attending, whose share for quantizing shows between lengths that commit
// and those that do not. It compares with nothing: bench/cpu_suite.py does that.
#include <benchmark/benchmark.h>
#include <kvq/kvq.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int kQHeads = 32, kKvHeads = 8, kHead = 128;
constexpr int64_t kSpareTokens = 1 << 16; // what the timed steps may append

// Takes the error over: its message ends the benchmark and is reported with it.
bool failed(benchmark::State &state, kvq_error *error) {
  if (!error)
    return false;
  state.SkipWithError(kvq_error_message(error));
  kvq_error_free(error);
  return true;
}

kvq_tensor view(std::vector<float> &data, int64_t heads, int64_t tokens) {
  return {
      data.data(), KVQ_F32, KVQ_CPU, 4, {1, heads, tokens, kHead}, {heads * tokens * kHead, tokens * kHead, kHead, 1}};
}

// One cache with one layer and one sequence of `tokens` tokens, in memory of its own.
class Fixture {
public:
  Fixture(benchmark::State &state, const char *format, int64_t tokens) : state_(state) {
    kvq_context_options options = {};
    options.struct_size = sizeof options;
    options.device = std::getenv("KVQ_BENCH_DEVICE");
    options.threads = 1;
    if (failed(state_, kvq_context_create(&options, &context_)) || !createCache(format, tokens))
      return;
    ready_ = failed(state_, kvq_sequence_add(cache_, &sequence_)) ? false : tokens == 0 || run(tokens, false);
  }
  ~Fixture() {
    if (cache_)
      kvq_cache_destroy(cache_);
    if (context_)
      kvq_context_destroy(context_);
    std::free(memory_);
  }
  Fixture(const Fixture &) = delete;
  Fixture &operator=(const Fixture &) = delete;
  bool ready() const { return ready_; }

  // A step of `tokens` new tokens, with or without attention.
  bool run(int64_t tokens, bool attend) {
    const int32_t count = static_cast<int32_t>(tokens);
    kvq_plan_desc desc = {};
    desc.struct_size = sizeof desc;
    desc.count = 1;
    desc.sequences = &sequence_;
    desc.new_tokens = &count;
    kvq_step *step = nullptr;
    if (failed(state_, kvq_plan(cache_, &desc, &step)))
      return false;
    if (failed(state_, attend ? forward(step) : append(step, tokens)) || failed(state_, kvq_commit_step(step))) {
      kvq_abort_step(step);
      return false;
    }
    return true;
  }

private:
  bool createCache(const char *format, int64_t tokens) {
    kvq_cache_config config = {};
    config.struct_size = sizeof config;
    config.format = format;
    config.layers = 1;
    config.q_heads = kQHeads;
    config.kv_heads = kKvHeads;
    config.dk = config.dv = kHead;
    config.blocks = (tokens + kSpareTokens) / 128 + 2;
    config.page_tokens = 128;
    config.sequences = 1;
    size_t bytes = 0;
    if (failed(state_, kvq_cache_memory_bytes(&config, &bytes)))
      return false;
    memory_ = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    return !failed(state_, kvq_cache_create(context_, &config, memory_, bytes, &cache_)) &&
           !failed(state_, kvq_cache_prepare(cache_, nullptr, nullptr));
  }

  kvq_error *append(kvq_step *step, int64_t tokens) {
    if (k_.size() != static_cast<size_t>(kKvHeads * tokens * kHead)) {
      std::mt19937 generator(1);
      std::normal_distribution<float> normal;
      k_.resize(kKvHeads * tokens * kHead);
      for (float &x : k_)
        x = normal(generator);
      v_ = k_;
    }
    const kvq_tensor k = view(k_, kKvHeads, tokens), v = view(v_, kKvHeads, tokens);
    return kvq_append(step, 0, &k, &v);
  }

  kvq_error *forward(kvq_step *step) {
    size_t bytes = 0;
    if (kvq_error *error = kvq_workspace_bytes(step, &bytes))
      return error;
    if (workspace_.size() < bytes + 64)
      workspace_.resize(bytes + 64);
    void *aligned = reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(workspace_.data()) + 63) / 64 * 64);
    if (kvq_error *error = append(step, 1))
      return error;
    const kvq_tensor q = view(q_, kQHeads, 1), out = view(out_, kQHeads, 1);
    return kvq_attend(step, 0, &q, 0.088f, aligned, bytes, nullptr, &out, nullptr);
  }

  benchmark::State &state_;
  kvq_context *context_ = nullptr;
  kvq_cache *cache_ = nullptr;
  void *memory_ = nullptr;
  int32_t sequence_ = 0;
  bool ready_ = false;
  std::vector<float> k_, v_, q_ = std::vector<float>(kQHeads * kHead, 0.5f), out_ = q_;
  std::vector<unsigned char> workspace_;
};

// A pool that runs out ends the benchmark with the message of the plan that found it full.
void decodeStep(benchmark::State &state, const char *format) {
  Fixture fixture(state, format, state.range(0));
  while (fixture.ready() && state.KeepRunning())
    if (!fixture.run(1, true))
      break;
}

void appendTokens(benchmark::State &state, const char *format) {
  Fixture fixture(state, format, 0);
  while (fixture.ready() && state.KeepRunning())
    if (!fixture.run(state.range(0), false))
      break;
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

} // namespace

BENCHMARK_CAPTURE(decodeStep, k4c128_v4t128, "k4c128-v4t128")->Arg(4096)->Arg(32768)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(decodeStep, k2c32_v2t32, "k2c32-v2t32")->Arg(4096)->Arg(32768)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(appendTokens, k4c128_v4t128, "k4c128-v4t128")
    ->Arg(1)
    ->Iterations(2048)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(appendTokens, k4c128_v4t128, "k4c128-v4t128")
    ->Arg(1024)
    ->Iterations(32)
    ->Unit(benchmark::kMicrosecond);

BENCHMARK_MAIN();
