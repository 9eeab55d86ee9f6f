// SPDX-License-Identifier: Apache-2.0
//
// kvq_sequence_*: adding, removing, looking at, forking, taking back and storing sequences.
#include "runtime/capi/handles.h"

using namespace kvq;
using namespace kvq::capi;

extern "C" {

kvq_error *kvq_sequence_add(kvq_cache *cache, int32_t *sequence) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(sequence);
    auto added = cache->cache->addSequence();
    if (!added.isOk())
      return added.status();
    *sequence = added.value();
    return Status::ok();
  });
}

kvq_error *kvq_sequence_remove(kvq_cache *cache, int32_t sequence) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    return cache->cache->removeSequence(sequence);
  });
}

kvq_error *kvq_sequence_length(const kvq_cache *cache, int32_t sequence, int64_t *tokens) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(tokens);
    auto state = cache->cache->state(sequence);
    if (!state.isOk())
      return state.status();
    *tokens = state.value().length;
    return Status::ok();
  });
}

kvq_error *kvq_sequence_blocks(const kvq_cache *cache, int32_t sequence, size_t capacity, int32_t *blocks,
                               size_t *count) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(count);
    if (capacity > 0)
      KVQ_REQUIRE(blocks);
    auto state = cache->cache->state(sequence);
    if (!state.isOk())
      return state.status();
    const auto table = cache->cache->blocks(sequence);
    *count = table.size();
    std::copy_n(table.begin(), std::min(capacity, *count), blocks);
    return Status::ok();
  });
}

kvq_error *kvq_sequence_get_state(const kvq_cache *cache, int32_t sequence, kvq_sequence_state *state) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(state);
    if (state->struct_size < sizeof(kvq_sequence_state))
      return {Code::InvalidArgument, "state->struct_size is " + std::to_string(state->struct_size) +
                                         " but must be sizeof(kvq_sequence_state), " +
                                         std::to_string(sizeof(kvq_sequence_state))};
    auto found = cache->cache->state(sequence);
    if (!found.isOk())
      return found.status();
    const SequenceState &from = found.value();
    state->tokens = from.length;
    state->k_frontier = from.frontier.k;
    state->v_frontier = from.frontier.v;
    state->first_block = from.firstPage;
    state->least_tokens = leastLength(from, cache->cache->config());
    state->blocks = static_cast<int64_t>(cache->cache->blocks(sequence).size());
    return Status::ok();
  });
}

kvq_error *kvq_sequence_fork(kvq_cache *cache, int32_t sequence, int32_t *fork) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(fork);
    auto forked = cache->cache->forkSequence(sequence);
    if (!forked.isOk())
      return forked.status();
    *fork = forked.value();
    return Status::ok();
  });
}

kvq_error *kvq_sequence_crop(kvq_cache *cache, int32_t sequence, int64_t tokens, int64_t *thawed) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    auto cropped = cache->cache->cropSequence(sequence, tokens);
    if (!cropped.isOk())
      return cropped.status();
    if (thawed)
      *thawed = cropped.value();
    return Status::ok();
  });
}

kvq_error *kvq_sequence_snapshot_bytes(const kvq_cache *cache, int32_t sequence, size_t *bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(bytes);
    auto needed = cache->cache->snapshotBytes(sequence);
    if (!needed.isOk())
      return needed.status();
    *bytes = static_cast<size_t>(needed.value());
    return Status::ok();
  });
}

kvq_error *kvq_sequence_snapshot(const kvq_cache *cache, int32_t sequence, void *data, size_t bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(data);
    return cache->cache->snapshot(sequence, {static_cast<uint8_t *>(data), bytes});
  });
}

kvq_error *kvq_sequence_restore(kvq_cache *cache, const void *data, size_t bytes, int32_t *sequence) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(data);
    KVQ_REQUIRE(sequence);
    auto restored = cache->cache->restore({static_cast<const uint8_t *>(data), bytes});
    if (!restored.isOk())
      return restored.status();
    *sequence = restored.value();
    return Status::ok();
  });
}

} // extern "C"
