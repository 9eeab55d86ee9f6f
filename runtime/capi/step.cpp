// SPDX-License-Identifier: Apache-2.0
//
// kvq_plan, kvq_plan_blocks, kvq_append, kvq_attend, kvq_forward, kvq_commit_step, kvq_abort_step.
#include "runtime/capi/handles.h"

#include <cstddef>

using namespace kvq;
using namespace kvq::capi;

namespace {

Status checkRows(const Step &step, const char *name, const kvq_tensor *tensor, int heads, int channels, int64_t tokens,
                 Access access) {
  KVQ_RETURN_IF_ERROR(checkTensor(step.cache().device(), name, tensor, step.cache().config().type,
                                  {step.count(), heads, tokens, channels}, true, access));
  return step.checkTokens(name, tensor->shape[2]);
}

Status checkKV(const Step &step, const kvq_tensor *k, const kvq_tensor *v, int64_t tokens) {
  const CacheConfig &config = step.cache().config();
  KVQ_RETURN_IF_ERROR(checkRows(step, "k", k, config.kvHeads, config.dk, tokens, Access::Read));
  return checkRows(step, "v", v, config.kvHeads, config.dv, k->shape[2], Access::Read);
}

struct AttendInput {
  const kvq_tensor *q;
  float scale;
  void *workspace;
  size_t workspaceBytes;
  void *stream;
  const kvq_tensor *out, *lse;
};

Status checkWorkspace(const Step &step, const AttendInput &input) {
  const auto needed = static_cast<size_t>(step.workspaceBytes());
  if (needed == 0)
    return Status::ok();
  KVQ_REQUIRE(input.workspace);
  if (input.workspaceBytes < needed)
    return {Code::InvalidArgument, "workspace of " + std::to_string(input.workspaceBytes) +
                                       " bytes is too small: this step needs " + std::to_string(needed) +
                                       " (kvq_workspace_bytes)"};
  if (reinterpret_cast<uintptr_t>(input.workspace) % 64 != 0)
    return {Code::InvalidArgument, "workspace is not aligned to 64 bytes: allocate it with aligned_alloc(64, ...)"};
  return Status::ok();
}

// Checks everything that attention needs and turns it into what the step takes.
Status checkAttend(const Step &step, const AttendInput &input, AttendBuffers &buffers) {
  const CacheConfig &config = step.cache().config();
  KVQ_RETURN_IF_ERROR(checkRows(step, "q", input.q, config.qHeads, config.dk, kAnySize, Access::Read));
  const int64_t tokens = input.q->shape[2];
  KVQ_RETURN_IF_ERROR(checkRows(step, "out", input.out, config.qHeads, config.dv, tokens, Access::Write));
  if (!(input.scale - input.scale == 0.0f))
    return {Code::InvalidArgument, "scale is " + std::to_string(input.scale) + " but must be finite"};
  auto stream = streamOn(step.cache().device(), input.stream);
  if (!stream.isOk())
    return stream.status();
  KVQ_RETURN_IF_ERROR(checkWorkspace(step, input));
  buffers.stream = stream.value();
  buffers.workspace = input.workspace;
  buffers.workspaceBytes = input.workspaceBytes;
  if (!input.lse)
    return Status::ok();
  KVQ_RETURN_IF_ERROR(checkTensor(step.cache().device(), "lse", input.lse, ElementType::F32,
                                  {step.count(), config.qHeads, tokens}, false, Access::Write));
  buffers.lse.data = input.lse->data;
  buffers.lse.tokens = tokens;
  buffers.lse.batchStride = input.lse->strides[0];
  buffers.lse.headStride = input.lse->strides[1];
  buffers.lse.tokenStride = input.lse->strides[2];
  return Status::ok();
}

} // namespace

static Result<PlanDesc> toPlanDesc(const kvq_cache *cache, const kvq_plan_desc *desc) {
  KVQ_REQUIRE(cache);
  KVQ_REQUIRE(desc);
  auto copied = copyStruct(desc, "desc", offsetof(kvq_plan_desc, past_only));
  if (!copied.isOk())
    return copied.status();
  const kvq_plan_desc &given = copied.value();
  if (given.count < 1 || given.count > cache->cache->config().sequences)
    return Status(Code::InvalidArgument, "desc->count is " + std::to_string(given.count) + " but must be 1 to " +
                                             std::to_string(cache->cache->config().sequences) +
                                             ", the sequences of the cache");
  KVQ_REQUIRE(desc->sequences);
  KVQ_REQUIRE(desc->new_tokens);
  return PlanDesc{given.count, given.sequences, given.new_tokens, given.first_tokens, given.past_only != 0};
}

extern "C" {

kvq_error *kvq_plan(kvq_cache *cache, const kvq_plan_desc *desc, kvq_step **step) {
  return guarded([&]() -> Status {
    auto given = toPlanDesc(cache, desc);
    if (!given.isOk())
      return given.status();
    KVQ_REQUIRE(step);
    KVQ_RETURN_IF_ERROR(cache->step.step->plan(given.value()));
    *step = &cache->step;
    return Status::ok();
  });
}

kvq_error *kvq_plan_blocks(const kvq_cache *cache, const kvq_plan_desc *desc, int64_t *blocks) {
  return guarded([&]() -> Status {
    auto given = toPlanDesc(cache, desc);
    if (!given.isOk())
      return given.status();
    KVQ_REQUIRE(blocks);
    auto needed = Step::blocksNeeded(*cache->cache, given.value());
    if (!needed.isOk())
      return needed.status();
    *blocks = needed.value();
    return Status::ok();
  });
}

kvq_error *kvq_workspace_bytes(const kvq_step *step, size_t *bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(step);
    KVQ_REQUIRE(bytes);
    *bytes = static_cast<size_t>(step->step->workspaceBytes());
    return Status::ok();
  });
}

kvq_error *kvq_append(kvq_step *step, int32_t layer, const kvq_tensor *k, const kvq_tensor *v) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(step);
    KVQ_RETURN_IF_ERROR(checkKV(*step->step, k, v, kAnySize));
    return step->step->append(layer, toRows(*k), toRows(*v));
  });
}

kvq_error *kvq_attend(kvq_step *step, int32_t layer, const kvq_tensor *q, float scale, void *workspace,
                      size_t workspace_bytes, void *stream, const kvq_tensor *out, const kvq_tensor *lse) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(step);
    AttendBuffers buffers;
    KVQ_RETURN_IF_ERROR(checkAttend(*step->step, {q, scale, workspace, workspace_bytes, stream, out, lse}, buffers));
    return step->step->attend(layer, toRows(*q), scale, buffers, toRows(*out));
  });
}

kvq_error *kvq_forward(kvq_step *step, int32_t layer, const kvq_tensor *q, const kvq_tensor *k, const kvq_tensor *v,
                       float scale, void *workspace, size_t workspace_bytes, void *stream, const kvq_tensor *out,
                       const kvq_tensor *lse) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(step);
    AttendBuffers buffers;
    KVQ_RETURN_IF_ERROR(checkAttend(*step->step, {q, scale, workspace, workspace_bytes, stream, out, lse}, buffers));
    KVQ_RETURN_IF_ERROR(checkKV(*step->step, k, v, q->shape[2]));
    return step->step->forward(layer, toRows(*q), toRows(*k), toRows(*v), scale, buffers, toRows(*out));
  });
}

kvq_error *kvq_commit_step(kvq_step *step) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(step);
    return step->step->commit();
  });
}

void kvq_abort_step(kvq_step *step) {
  if (step)
    step->step->abort();
}

} // extern "C"
