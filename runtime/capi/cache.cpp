// SPDX-License-Identifier: Apache-2.0
//
// kvq_cache_*, kvq_report, kvq_read, kvq_layer_page*, kvq_query_support.
#include "runtime/capi/targets.h"

#include "runtime/cache/prepare.h"

#include <cstddef>

using namespace kvq;
using namespace kvq::capi;

namespace kvq::capi {

Result<std::shared_ptr<const ScoreFunction>> toScore(const kvq_score_function *score) {
  auto copied = copyStruct(score, "score");
  if (!copied.isOk())
    return copied.status();
  const int language = enumValue(copied.value().language);
  if (language != KVQ_SCORE_IR && language != KVQ_SCORE_CUDA)
    return Status(Code::InvalidArgument, "score->language is " + std::to_string(language) +
                                             " but must be KVQ_SCORE_IR (0) or KVQ_SCORE_CUDA (1)");
  if (!copied.value().text || !*copied.value().text)
    return Status(Code::InvalidArgument, "score->text is empty: pass the text of a score function, or no score");
  const char *name = copied.value().name;
  return std::shared_ptr<const ScoreFunction>(std::make_shared<ScoreFunction>(
      ScoreFunction{language == KVQ_SCORE_CUDA ? ScoreLanguage::Cuda : ScoreLanguage::Ir, copied.value().text,
                    name && *name ? name : "score"}));
}

Result<CacheConfig> toConfig(const kvq_cache_config *config) {
  KVQ_REQUIRE(config);
  auto copied = copyStruct(config, "config", offsetof(kvq_cache_config, attention_window));
  if (!copied.isOk())
    return copied.status();
  const kvq_cache_config &given = copied.value();
  if (!given.format)
    return Status(Code::InvalidArgument, "config->format is NULL: pass a cache text such as kvq-4");
  auto format = parseCache(given.format);
  if (!format.isOk())
    return format.status();
  auto type = toElementType("config", given.dtype);
  if (!type.isOk())
    return type.status();
  auto accuracy = toAccuracy("config", given.accuracy);
  if (!accuracy.isOk())
    return accuracy.status();
  CacheConfig result;
  result.format = format.value();
  result.layers = given.layers;
  result.qHeads = given.q_heads;
  result.kvHeads = given.kv_heads;
  result.dk = given.dk;
  result.dv = given.dv;
  result.type = type.value();
  result.pageTokens = given.page_tokens ? given.page_tokens : defaultPageTokens(result.format.pair);
  result.blocks = given.blocks;
  result.sequences = given.sequences;
  // In the struct of 0.1 the caller's padding lies where attention_window is.
  const bool first = given.struct_size <= offsetof(kvq_cache_config, score_cap);
  result.attentionWindow = first ? 0 : given.attention_window;
  result.scoreCap = given.score_cap;
  result.accuracy = accuracy.value();
  if (given.score) {
    auto score = toScore(given.score);
    if (!score.isOk())
      return score.status();
    result.score = score.value();
  }
  if (given.split_policy) {
    auto splits = parseSplitPolicy(given.split_policy);
    if (!splits.isOk())
      return splits.status();
    result.splits = splits.value();
  }
  KVQ_RETURN_IF_ERROR(checkConfig(result));
  return result;
}

} // namespace kvq::capi

static Status checkLayer(const CacheConfig &config, int32_t layer) {
  if (layer >= 0 && layer < config.layers)
    return Status::ok();
  return {Code::InvalidArgument,
          "layer " + std::to_string(layer) + " does not exist: the cache has " + std::to_string(config.layers)};
}

extern "C" {

kvq_error *kvq_query_support(kvq_context *context, const kvq_cache_config *config) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    auto checked = toConfig(config);
    if (!checked.isOk())
      return checked.status();
    const CacheConfig here = onDevice(checked.value(), *context->device);
    KVQ_RETURN_IF_ERROR(checkProfile(here.profile, here.format.pair));
    for (int kernel = 0; kernel < cacheKernels(here); ++kernel)
      KVQ_RETURN_IF_ERROR(context->device->available(kernelRequest(here, kernel), kernelScore(here, kernel)));
    return Status::ok();
  });
}

kvq_error *kvq_cache_memory_bytes(const kvq_cache_config *config, size_t *bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(bytes);
    auto checked = toConfig(config);
    if (!checked.isOk())
      return checked.status();
    *bytes = static_cast<size_t>(Geometry(checked.value()).bytes);
    return Status::ok();
  });
}

kvq_error *kvq_cache_create(kvq_context *context, const kvq_cache_config *config, void *memory, size_t bytes,
                            kvq_cache **cache) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(cache);
    auto checked = toConfig(config);
    if (!checked.isOk())
      return checked.status();
    auto created = Cache::create(context->device, checked.value(), memory, bytes);
    if (!created.isOk())
      return created.status();
    *cache = new kvq_cache{std::move(created.value())};
    return Status::ok();
  });
}

void kvq_cache_destroy(kvq_cache *cache) { delete cache; }

kvq_error *kvq_cache_grow(kvq_cache *cache, int64_t blocks, int32_t sequences, void *memory, size_t bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    return cache->cache->grow(blocks, sequences, memory, bytes);
  });
}

kvq_error *kvq_cache_prepare(kvq_cache *cache, kvq_kernel_visitor progress, void *user_data) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    return cache->cache->prepare([&](const KernelInfo &info) { tell(progress, user_data, info); });
  });
}

kvq_error *kvq_prepare_targets(kvq_context *context, const kvq_cache_config *config, const char *targets,
                               kvq_kernel_visitor progress, void *user_data) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(targets);
    auto checked = toConfig(config);
    if (!checked.isOk())
      return checked.status();
    auto all = targetKernels(*context, targets);
    if (!all.isOk())
      return all.status();
    for (const auto &kernels : all.value())
      KVQ_RETURN_IF_ERROR(prepareTarget(checked.value(), *kernels, context->device->parallel(),
                                        [&](const KernelInfo &info) { tell(progress, user_data, info); }));
    return Status::ok();
  });
}

kvq_error *kvq_cache_refresh_kernels(kvq_cache *cache) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    return cache->cache->refreshKernels();
  });
}

kvq_error *kvq_report(const kvq_cache *cache, kvq_cache_report *report) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(report);
    auto checked = copyStruct(report, "report", offsetof(kvq_cache_report, bytes_touched));
    if (!checked.isOk())
      return checked.status();
    const CacheReport from = cache->cache->report();
    report->tokens = from.tokens;
    report->sequences = from.sequences;
    report->blocks_used = from.blocksUsed;
    report->blocks_capacity = from.blocksCapacity;
    report->page_bytes_used = from.pageBytesUsed;
    report->tail_bytes_used = from.tailBytesUsed;
    report->bytes_used = from.pageBytesUsed + from.tailBytesUsed;
    report->bytes_reserved = from.bytesReserved;
    report->bits_per_element = from.bitsPerElement;
    if (report->struct_size > offsetof(kvq_cache_report, bytes_touched))
      report->bytes_touched = from.bytesTouched;
    if (report->struct_size > offsetof(kvq_cache_report, accuracy))
      report->accuracy = fromAccuracy(cache->cache->config().accuracy);
    return Status::ok();
  });
}

kvq_error *kvq_layer_page_strides(const kvq_cache *cache, int32_t layer, void **pages, int64_t *block_stride,
                                  int64_t *head_stride) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(pages);
    KVQ_REQUIRE(block_stride);
    KVQ_REQUIRE(head_stride);
    KVQ_RETURN_IF_ERROR(checkLayer(cache->cache->config(), layer));
    *pages = reinterpret_cast<void *>(cache->cache->pages(layer));
    *block_stride = cache->cache->geometry().blockStride;
    *head_stride = cache->cache->geometry().headStride;
    return Status::ok();
  });
}

kvq_error *kvq_layer_pages(const kvq_cache *cache, int32_t layer, void **pages, int64_t *block_stride) {
  const int heads = cache ? cache->cache->config().kvHeads : 1;
  if (heads > 1)
    return guarded([&]() -> Status {
      return {Code::Unsupported, "the cache has " + std::to_string(heads) +
                                     " KV heads, whose pages do not lie together in a block: use "
                                     "kvq_layer_page_strides"};
    });
  int64_t headStride;
  return kvq_layer_page_strides(cache, layer, pages, block_stride, &headStride);
}

kvq_error *kvq_cache_set_sinks(kvq_cache *cache, int32_t layer, const float *logits, int32_t count) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    KVQ_REQUIRE(logits);
    KVQ_RETURN_IF_ERROR(checkLayer(cache->cache->config(), layer));
    if (count != cache->cache->config().qHeads)
      return {Code::InvalidArgument, "count is " + std::to_string(count) + " but must be the " +
                                         std::to_string(cache->cache->config().qHeads) + " query heads of the cache"};
    return cache->cache->setSinks(layer, {logits, static_cast<size_t>(count)});
  });
}

kvq_error *kvq_read_from(kvq_cache *cache, int32_t sequence, int32_t layer, int64_t first, const kvq_tensor *k,
                         const kvq_tensor *v) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(cache);
    const CacheConfig &config = cache->cache->config();
    auto state = cache->cache->state(sequence);
    if (!state.isOk())
      return state.status();
    KVQ_RETURN_IF_ERROR(checkLayer(config, layer));
    const int64_t tokens = std::max<int64_t>(0, state.value().length - std::max<int64_t>(first, 0));
    const Device &device = cache->cache->device();
    KVQ_RETURN_IF_ERROR(
        checkTensor(device, "k", k, config.type, {config.kvHeads, tokens, config.dk}, true, Access::Write));
    KVQ_RETURN_IF_ERROR(
        checkTensor(device, "v", v, config.type, {config.kvHeads, tokens, config.dv}, true, Access::Write));
    return cache->cache->read(sequence, layer, first, toRows(*k), toRows(*v));
  });
}

kvq_error *kvq_read(kvq_cache *cache, int32_t sequence, int32_t layer, const kvq_tensor *k, const kvq_tensor *v) {
  return kvq_read_from(cache, sequence, layer, 0, k, v);
}

} // extern "C"
