// SPDX-License-Identifier: Apache-2.0
//
// How fast this processor reads memory: three loops, of which a machine's best is its stream rate. They differ in what
// hides the latency: the hardware's prefetcher on one stream, prefetch instructions, or several streams at once.
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

typedef uint64_t Vector __attribute__((vector_size(64)));
constexpr size_t kAccumulators = 8, kAhead = 64; // kAhead: cache lines between a prefetch and its load

Vector fold(const Vector (&sums)[kAccumulators]) {
  Vector total = {};
  for (const Vector &sum : sums)
    total += sum;
  return total;
}

Vector readPlain(const Vector *data, size_t count) {
  Vector sums[kAccumulators] = {};
  for (size_t i = 0; i + kAccumulators <= count; i += kAccumulators)
    for (size_t j = 0; j < kAccumulators; ++j)
      sums[j] += data[i + j];
  return fold(sums);
}

Vector readPrefetched(const Vector *data, size_t count) {
  Vector sums[kAccumulators] = {};
  for (size_t i = 0; i + kAccumulators <= count; i += kAccumulators)
    for (size_t j = 0; j < kAccumulators; ++j) {
      __builtin_prefetch(data + i + j + kAhead);
      sums[j] += data[i + j];
    }
  return fold(sums);
}

// Four streams, a quarter of the memory apart.
Vector readFourStreams(const Vector *data, size_t count) {
  Vector sums[kAccumulators] = {};
  const size_t quarter = count / 4;
  for (size_t i = 0; i + 2 <= quarter; i += 2)
    for (size_t j = 0; j < kAccumulators; ++j)
      sums[j] += data[(j / 2) * quarter + i + j % 2];
  return fold(sums);
}

struct Loop {
  const char *name;
  Vector (*read)(const Vector *, size_t);
};
constexpr Loop kLoops[] = {{"plain", readPlain}, {"prefetch", readPrefetched}, {"four-streams", readFourStreams}};

} // namespace

extern "C" {

int kvq_stream_loops() { return sizeof kLoops / sizeof *kLoops; }

const char *kvq_stream_loop_name(int loop) { return kLoops[loop].name; }

// Reads `bytes` (a multiple of 4 KiB times threads) of 64-byte aligned memory with the caller and threads - 1 others.
// The result depends on every byte, so that no compiler leaves the loop out.
uint64_t kvq_stream_read(int loop, const void *data, size_t bytes, int threads) {
  const Vector *vectors = static_cast<const Vector *>(data);
  const size_t part = bytes / sizeof(Vector) / threads;
  std::vector<Vector> sums(threads);
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t)
    others.emplace_back([&, t] { sums[t] = kLoops[loop].read(vectors + t * part, part); });
  sums[0] = kLoops[loop].read(vectors, part);
  for (std::thread &other : others)
    other.join();
  uint64_t result = 0;
  for (const Vector &sum : sums)
    for (size_t lane = 0; lane < sizeof(Vector) / sizeof(uint64_t); ++lane)
      result += sum[lane];
  return result;
}
}
