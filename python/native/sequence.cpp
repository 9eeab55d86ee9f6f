// SPDX-License-Identifier: Apache-2.0
//
// The sequences of kvq._native.Cache: adding, removing, looking at, forking, taking back, storing.
#include "python/native/native.h"

#include <nanobind/stl/vector.h>

#include <vector>

namespace kvq::python {

static int32_t add(Cache &self) {
  int32_t sequence = 0;
  self.call([&](kvq_cache *cache) { return kvq_sequence_add(cache, &sequence); });
  return sequence;
}

static void remove(Cache &self, int sequence) {
  self.call([&](kvq_cache *cache) { return kvq_sequence_remove(cache, sequence); });
}

static int64_t length(Cache &self, int sequence) {
  int64_t tokens = 0;
  self.call([&](kvq_cache *cache) { return kvq_sequence_length(cache, sequence, &tokens); });
  return tokens;
}

static nb::dict state(Cache &self, int sequence) {
  kvq_sequence_state s = {};
  s.struct_size = sizeof s;
  self.call([&](kvq_cache *cache) { return kvq_sequence_get_state(cache, sequence, &s); });
  nb::dict result;
  result["length"] = s.tokens;
  result["k_frontier"] = s.k_frontier;
  result["v_frontier"] = s.v_frontier;
  result["first_block"] = s.first_block;
  result["blocks"] = s.blocks;
  result["least_tokens"] = s.least_tokens;
  return result;
}

static int32_t fork(Cache &self, int sequence) {
  int32_t result = 0;
  self.call([&](kvq_cache *cache) { return kvq_sequence_fork(cache, sequence, &result); });
  return result;
}

static int64_t crop(Cache &self, int sequence, int64_t tokens) {
  int64_t thawed = 0;
  self.call([&](kvq_cache *cache) { return kvq_sequence_crop(cache, sequence, tokens, &thawed); });
  return thawed;
}

static nb::bytes snapshot(Cache &self, int sequence) {
  std::vector<char> data;
  self.call([&](kvq_cache *cache) {
    size_t bytes = 0;
    kvq_error *error = kvq_sequence_snapshot_bytes(cache, sequence, &bytes);
    if (error)
      return error;
    data.resize(bytes);
    return kvq_sequence_snapshot(cache, sequence, data.data(), bytes);
  });
  return nb::bytes(data.data(), data.size());
}

static int32_t restore(Cache &self, const nb::bytes &data) {
  int32_t sequence = 0;
  const void *bytes = data.data();
  const size_t size = data.size();
  self.call([&](kvq_cache *cache) { return kvq_sequence_restore(cache, bytes, size, &sequence); });
  return sequence;
}

static std::vector<int32_t> blockTable(Cache &self, int sequence) {
  std::vector<int32_t> blocks;
  self.call([&](kvq_cache *cache) {
    size_t count = 0;
    kvq_error *error = kvq_sequence_blocks(cache, sequence, 0, nullptr, &count);
    if (error)
      return error;
    blocks.resize(count);
    return kvq_sequence_blocks(cache, sequence, count, blocks.data(), &count);
  });
  return blocks;
}

void bindSequences(nb::class_<Cache> &cache) {
  using namespace nb::literals;
  cache.def("add", add, "Adds an empty sequence and returns its number.")
      .def("remove", remove, "sequence"_a, "Removes a sequence; its blocks and its tail slot are free again.")
      .def("length", length, "sequence"_a, "Tokens of a sequence.")
      .def("state", state, "sequence"_a, "Length, frontiers, first page that is left, and blocks of a sequence.")
      .def("fork", fork, "sequence"_a,
           "A new sequence in the same state, which shares blocks until one of the two writes.")
      .def("crop", crop, "sequence"_a, "tokens"_a,
           "Takes a sequence back to its first `tokens` tokens; returns how many of them were thawed.")
      .def("snapshot", snapshot, "sequence"_a, "A sequence as bytes, with version and checksum.")
      .def("restore", restore, "data"_a,
           "A new sequence from such bytes, which a cache on any device may have written.")
      .def("block_table", blockTable, "sequence"_a,
           "Numbers of the blocks of a sequence, in order, from its first_block on.");
}

} // namespace kvq::python
