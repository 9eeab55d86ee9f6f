// SPDX-License-Identifier: Apache-2.0
//
// What does not depend on which accelerator it is.
#include "runtime/device/accelerator.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

namespace kvq {

static constexpr int64_t kWarp = 32;

Result<int64_t> residentWarps(const Accelerator &accelerator, const DeviceFunction &function) {
  const FunctionInfo &info = function.info();
  const int64_t threads = int64_t(info.block[0]) * info.block[1] * info.block[2];
  if (threads == 0)
    return Status(Code::InvalidArgument, "kernel " + info.name +
                                             " was not made for one size of blocks (.reqntid), on which it depends "
                                             "how many of them run at once");
  const auto blocks = function.blocksPerProcessor(static_cast<int>(threads), 0);
  if (!blocks.isOk())
    return blocks.status();
  return accelerator.processors() * blocks.value() * ((threads + kWarp - 1) / kWarp);
}

Result<std::vector<uint8_t>> packParameters(const FunctionInfo &function, std::span<const uint64_t> words) {
  if (words.size() != function.parameters.size())
    return Status(Code::InvalidArgument, "kernel " + function.name + " takes " +
                                             std::to_string(function.parameters.size()) + " arguments and was given " +
                                             std::to_string(words.size()));
  std::vector<uint8_t> buffer(static_cast<size_t>(function.parameterBytes));
  for (size_t i = 0; i < words.size(); ++i) {
    const FunctionInfo::Parameter &parameter = function.parameters[i];
    if (parameter.size > static_cast<int64_t>(sizeof(uint64_t)))
      return Status(Code::InvalidArgument, "parameter " + std::to_string(i) + " of kernel " + function.name + " has " +
                                               std::to_string(parameter.size) +
                                               " bytes: pass what is longer than 8 bytes in a buffer");
    std::memcpy(buffer.data() + parameter.offset, &words[i], static_cast<size_t>(parameter.size));
  }
  return buffer;
}

Status launchPrograms(Stream &stream, const DeviceFunction &function, std::span<const uint64_t> args,
                      const int64_t grid[3]) {
  constexpr int64_t kMost[3] = {INT32_MAX, 65535, 65535}; // blocks along each dimension
  const FunctionInfo &info = function.info();
  if (info.block[0] < kWarp || info.block[0] % kWarp != 0 || info.block[2] != 1)
    return {Code::InvalidArgument,
            "kernel " + info.name + " has no blocks of whole warps along x (.reqntid): launch it " + "as blocks"};
  // Of a block; its other dimension is the warps of a program.
  const int64_t programs = info.block[0] / kWarp;
  const int64_t blocks[3] = {grid[0] / programs + (grid[0] % programs != 0), grid[1], grid[2]};
  LaunchShape shape;
  for (int i = 0; i < 3; ++i) {
    if (grid[i] < 0 || blocks[i] > kMost[i])
      return {Code::InvalidArgument, "grid[" + std::to_string(i) + "] is " + std::to_string(grid[i]) +
                                         " programs: use at least 0 and at most " +
                                         std::to_string(i == 0 ? kMost[0] * programs : kMost[i])};
    shape.grid[i] = static_cast<uint32_t>(blocks[i]);
    shape.block[i] = info.block[i];
  }
  std::vector<uint64_t> words(args.begin(), args.end());
  words.push_back(static_cast<uint64_t>(grid[0]));
  auto parameters = packParameters(info, words);
  if (!parameters.isOk())
    return parameters.status();
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0)
    return Status::ok(); // nothing to do, as on a host
  return stream.launch(function, shape, parameters.value());
}

} // namespace kvq
