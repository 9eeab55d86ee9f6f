// SPDX-License-Identifier: Apache-2.0
//
// kvq_kernel_* and kvq_merge: kernels without a cache.
#include "runtime/capi/handles.h"

#include <kvq/kernel_abi.h>

#include <limits>
#include <sstream>

using namespace kvq;
using namespace kvq::capi;

namespace kvq::capi {

kvq_kernel *makeKernel(const std::shared_ptr<Device> &device, KernelRef kernel) {
  std::istringstream words(kernel->info().signature);
  int32_t arguments = 0;
  for (std::string word; words >> word;)
    ++arguments;
  return new kvq_kernel{device, std::move(kernel), arguments};
}

Status checkScored(const KernelRequest &request, const ScoreFunction *score) {
  if (!score || request.op == KernelOp::Attend)
    return Status::ok();
  return {Code::InvalidArgument,
          "a kernel '" + std::string(toText(request.op)) + "' has no scores: give score functions to attend kernels"};
}

} // namespace kvq::capi

namespace {

Status checkGrid(const int64_t grid[3]) {
  int64_t programs = 1;
  for (int i = 0; i < 3; ++i) {
    if (grid[i] < 0 || __builtin_mul_overflow(programs, std::max<int64_t>(grid[i], 1), &programs))
      return {Code::InvalidArgument, "grid[" + std::to_string(i) + "] is " + std::to_string(grid[i]) +
                                         ": use sizes of at least 0 whose product fits in 63 bits"};
  }
  return Status::ok();
}

Status checkCount(const kvq_kernel &kernel, int32_t count) {
  if (count == kernel.arguments)
    return Status::ok();
  return {Code::InvalidArgument, "count is " + std::to_string(count) + " but the kernel takes " +
                                     std::to_string(kernel.arguments) +
                                     " arguments: " + kernel.kernel->info().signature};
}

// On a device with blocks of threads; block 0: the kernel's own size.
Status launchBlocks(const kvq_kernel &kernel, std::span<const uint64_t> args, LaunchShape shape, void *stream) {
  const DeviceFunction &function = *kernel.kernel->function();
  const FunctionInfo &info = function.info();
  if (kernel.kernel->gridOf() == GridOf::Programs)
    return {Code::InvalidArgument, "kernel " + info.name + " of request " + kernel.kernel->info().name +
                                       " has a grid of programs: use kvq_kernel_launch"};
  if (std::find(shape.grid, shape.grid + 3, 0u) != shape.grid + 3)
    return Status::ok(); // nothing to do, as on a host
  if (shape.block[0] == 0 || shape.block[1] == 0 || shape.block[2] == 0) {
    if (info.block[0] == 0)
      return {Code::InvalidArgument, "kernel " + info.name +
                                         " was not made for one size of blocks (.reqntid): launch "
                                         "it with kvq_kernel_launch_blocks and its block"};
    std::copy(info.block, info.block + 3, shape.block);
  }
  auto parameters = packParameters(info, args);
  if (!parameters.isOk())
    return parameters.status();
  return streamOf(*kernel.device->accelerator(), stream).launch(function, shape, parameters.value());
}

struct MergeShape {
  int64_t splits, queries, heads, dv;
};

Status checkMerge(const Device &device, const kvq_tensor *o, const kvq_tensor *lse, const kvq_tensor *out,
                  const kvq_tensor *outLse, MergeShape &shape) {
  KVQ_RETURN_IF_ERROR(
      checkTensor(device, "o", o, ElementType::F32, {kAnySize, kAnySize, kAnySize, kAnySize}, true, Access::Read));
  shape = {o->shape[0], o->shape[1], o->shape[2], o->shape[3]};
  const auto [splits, queries, heads, dv] = shape;
  if (splits < 1 || splits > std::numeric_limits<int32_t>::max())
    return {Code::InvalidArgument, "o has " + std::to_string(splits) + " splits but must have at least 1"};
  if (dv < 16 || dv > 256 || dv % 16 != 0)
    return {Code::InvalidArgument,
            "o has rows of " + std::to_string(dv) + " channels: use a multiple of 16, at most 256"};
  KVQ_RETURN_IF_ERROR(checkTensor(device, "lse", lse, ElementType::F32, {splits, queries, heads}, true, Access::Read));
  KVQ_REQUIRE(out);
  auto type = toElementType("out", out->dtype);
  if (!type.isOk())
    return type.status();
  KVQ_RETURN_IF_ERROR(checkTensor(device, "out", out, type.value(), {queries, heads, dv}, true, Access::Write));
  if (outLse)
    KVQ_RETURN_IF_ERROR(
        checkTensor(device, "out_lse", outLse, ElementType::F32, {queries, heads}, false, Access::Write));
  const auto contiguous = [](const kvq_tensor &tensor) {
    int64_t stride = 1;
    for (int i = tensor.ndim - 1; i >= 0; stride *= tensor.shape[i--])
      if (tensor.shape[i] > 1 && tensor.strides[i] != stride)
        return false;
    return true;
  };
  for (const auto &[name, tensor] : {std::pair("o", o), std::pair("lse", lse)})
    if (!contiguous(*tensor))
      return {Code::InvalidArgument, std::string(name) + " is not contiguous: copy it into a contiguous tensor"};
  return Status::ok();
}

// What the programs read besides tensors, and their log-sum-exp, in one piece of memory where the device sees it.
struct MergeLists {
  MergeLists(const MergeShape &shape, const kvq_tensor &out)
      : offsets(shape.queries), splits(shape.queries, static_cast<int32_t>(shape.splits)),
        noSinks(shape.heads, -std::numeric_limits<float>::infinity()),
        lseBytes(shape.queries * shape.heads * int64_t(sizeof(float))) {
    for (int64_t i = 0; i < shape.queries; ++i)
      offsets[i] = i * out.strides[0];
  }
  template <typename Item> static int64_t bytesOf(const std::vector<Item> &items) {
    return static_cast<int64_t>(items.size() * sizeof(Item));
  }
  int64_t bytes() const { return bytesOf(offsets) + bytesOf(splits) + bytesOf(noSinks) + lseBytes; }

  std::vector<int64_t> offsets;
  std::vector<int32_t> splits;
  std::vector<float> noSinks;
  int64_t lseBytes;
};

Status merge(const Device &device, const Kernel &kernel, const MergeShape &shape, Stream *stream, const kvq_tensor &o,
             const kvq_tensor &lse, const kvq_tensor &out, const kvq_tensor *outLse) {
  const MergeLists lists(shape, out);
  CacheMemory memory(device.accelerator());
  Scratch seen(memory, "lists of a merge");
  KVQ_RETURN_IF_ERROR(seen.reserve(lists.bytes()));
  const CacheMemory::OnStream on(memory, stream);
  DeviceAddress end = seen.address();
  const auto put = [&](const auto &items) {
    const DeviceAddress begin = end;
    memory.copyIn(begin, items.data(), lists.bytesOf(items));
    end += lists.bytesOf(items);
    return begin;
  };
  uint64_t args[KVQ_MERGE_ARGS];
  args[KVQ_MERGE_PARTIAL_O] = word(o.data);
  args[KVQ_MERGE_PARTIAL_LSE] = word(lse.data);
  args[KVQ_MERGE_QUERIES] = word(shape.queries);
  args[KVQ_MERGE_HEADS] = word(shape.heads);
  args[KVQ_MERGE_OUT] = word(out.data);
  args[KVQ_MERGE_OUT_OFFSETS] = put(lists.offsets);
  args[KVQ_MERGE_OUT_HEAD_STRIDE] = word(out.strides[1]);
  args[KVQ_MERGE_SPLITS] = put(lists.splits);
  args[KVQ_MERGE_SINKS] = put(lists.noSinks);
  args[KVQ_MERGE_LSE] = end;
  const int64_t together = device.accelerator() ? 1 : shape.heads; // a warp would be long about all of them
  args[KVQ_MERGE_PROGRAM_HEADS] = word(together);
  const int64_t grid[3] = {shape.queries, shape.heads / together, 1};
  Status status = memory.launch(device, kernel, args, grid, Spread::Parallel);
  constexpr int64_t kSize = sizeof(float);
  for (int64_t i = 0; outLse && status.isOk() && i < shape.queries; ++i)
    status = memory.copyRowsOut(word(outLse->data) + i * outLse->strides[0] * kSize, outLse->strides[1] * kSize,
                                end + i * shape.heads * kSize, kSize, kSize, shape.heads);
  const Status done = memory.wait(); // the lists go
  return status.isOk() ? done : status;
}

Status openBuiltin(kvq_context &context, const char *request, const ScoreFunction *score, kvq_kernel **kernel) {
  auto parsed = parseKernelRequest(request);
  if (!parsed.isOk())
    return parsed.status();
  KVQ_RETURN_IF_ERROR(checkScored(parsed.value(), score));
  auto opened = context.device->open(parsed.value(), score);
  if (!opened.isOk())
    return opened.status();
  *kernel = makeKernel(context.device, opened.value());
  return Status::ok();
}

} // namespace

extern "C" {

kvq_error *kvq_merge(kvq_context *context, const kvq_tensor *o, const kvq_tensor *lse, void *stream,
                     const kvq_tensor *out, const kvq_tensor *out_lse) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    MergeShape shape;
    KVQ_RETURN_IF_ERROR(checkMerge(*context->device, o, lse, out, out_lse, shape));
    auto on = streamOn(*context->device, stream);
    if (!on.isOk())
      return on.status();
    KernelRequest request;
    request.profile = context->device->profile();
    request.op = KernelOp::Merge;
    // A merge depends on rows and their type only; this pair is legal for all of them.
    request.pair.k = {4, Axis::Token, 16};
    request.pair.v = {4, Axis::Token, 16};
    request.dv = static_cast<int>(shape.dv);
    request.type = toElementType("out", out->dtype).value(); // checkMerge has seen it
    auto kernel = context->device->open(request);
    if (!kernel.isOk())
      return kernel.status();
    return merge(*context->device, *kernel.value(), shape, on.value(), *o, *lse, *out, out_lse);
  });
}

kvq_error *kvq_kernel_compile(kvq_context *context, const char *text, kvq_kernel **kernel) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(text);
    KVQ_REQUIRE(kernel);
    auto compiled = context->device->compile(text, "");
    if (!compiled.isOk())
      return compiled.status();
    *kernel = makeKernel(context->device, compiled.value());
    return Status::ok();
  });
}

kvq_error *kvq_kernel_compile_entry(kvq_context *context, const char *text, const char *entry, kvq_kernel **kernel) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(text);
    KVQ_REQUIRE(entry);
    KVQ_REQUIRE(kernel);
    auto compiled = context->device->compile(text, entry);
    if (!compiled.isOk())
      return compiled.status();
    *kernel = makeKernel(context->device, compiled.value());
    return Status::ok();
  });
}

kvq_error *kvq_kernel_open(kvq_context *context, const char *request, kvq_kernel **kernel) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(kernel);
    return openBuiltin(*context, request, nullptr, kernel);
  });
}

kvq_error *kvq_kernel_open_scored(kvq_context *context, const char *request, const kvq_score_function *score,
                                  kvq_kernel **kernel) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(score);
    KVQ_REQUIRE(kernel);
    auto function = toScore(score);
    if (!function.isOk())
      return function.status();
    return openBuiltin(*context, request, function.value().get(), kernel);
  });
}

void kvq_kernel_destroy(kvq_kernel *kernel) { delete kernel; }

const char *kvq_kernel_signature(const kvq_kernel *kernel) {
  return kernel ? kernel->kernel->info().signature.c_str() : "";
}

const char *kvq_kernel_schedule(const kvq_kernel *kernel) {
  return kernel ? kernel->kernel->info().schedule.c_str() : "";
}

kvq_error *kvq_kernel_resident_warps(const kvq_kernel *kernel, int64_t *warps) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(kernel);
    KVQ_REQUIRE(warps);
    const Accelerator *accelerator = kernel->device->accelerator();
    if (!accelerator)
      return {Code::Unsupported,
              "a host runs as many programs at once as the context has threads: ask a kernel of a GPU"};
    const auto found = residentWarps(*accelerator, *kernel->kernel->function());
    if (found.isOk())
      *warps = found.value();
    return found.status();
  });
}

kvq_error *kvq_kernel_launch(kvq_kernel *kernel, const uint64_t *args, int32_t count, const int64_t grid[3],
                             void *stream) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(kernel);
    if (count != 0)
      KVQ_REQUIRE(args);
    KVQ_REQUIRE(grid);
    KVQ_RETURN_IF_ERROR(checkCount(*kernel, count));
    KVQ_RETURN_IF_ERROR(checkGrid(grid));
    if (const DeviceFunction *function = kernel->kernel->function()) {
      const std::span<const uint64_t> words(args, static_cast<size_t>(count));
      if (kernel->kernel->gridOf() == GridOf::Programs)
        return launchPrograms(streamOf(*kernel->device->accelerator(), stream), *function, words, grid);
      LaunchShape shape;
      std::fill(shape.block, shape.block + 3, 0);
      for (int i = 0; i < 3; ++i)
        shape.grid[i] = static_cast<uint32_t>(std::min<int64_t>(grid[i], UINT32_MAX));
      return launchBlocks(*kernel, words, shape, stream);
    }
    KVQ_RETURN_IF_ERROR(checkStream(stream));
    return kernel->device->launch(*kernel->kernel, args, grid, Spread::Parallel);
  });
}

kvq_error *kvq_kernel_launch_blocks(kvq_kernel *kernel, const kvq_launch *launch) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(kernel);
    KVQ_REQUIRE(launch);
    auto copy = copyStruct(launch, "launch");
    if (!copy.isOk())
      return copy.status();
    const kvq_launch &given = copy.value();
    if (given.count != 0)
      KVQ_REQUIRE(given.args);
    KVQ_RETURN_IF_ERROR(checkCount(*kernel, given.count));
    if (!kernel->kernel->function())
      return {Code::Unsupported, "kernels of this device have no blocks of threads: use kvq_kernel_launch"};
    LaunchShape shape;
    std::copy(given.grid, given.grid + 3, shape.grid);
    std::copy(given.block, given.block + 3, shape.block);
    shape.dynamicShared = given.shared_bytes;
    return launchBlocks(*kernel, {given.args, static_cast<size_t>(given.count)}, shape, given.stream);
  });
}

} // extern "C"
