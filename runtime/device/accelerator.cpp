// SPDX-License-Identifier: Apache-2.0
//
// What does not depend on which accelerator it is.
#include "runtime/device/accelerator.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

namespace kvq {

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

static constexpr uint32_t kWarp = 32; // threads

Status launchPrograms(Stream &stream, const DeviceFunction &function, std::span<const uint64_t> args,
                      int64_t programs) {
  const FunctionInfo &info = function.info();
  const uint32_t warps = info.block[0] / kWarp;
  if (warps == 0)
    return {Code::Internal, "kernel " + info.name + " says no size of its blocks (.reqntid): please report it"};
  if (programs == 0)
    return Status::ok();
  const int64_t blocks = (programs + warps - 1) / warps;
  if (blocks > std::numeric_limits<int32_t>::max())
    return {Code::Unsupported, std::to_string(programs) + " programs of kernel " + info.name +
                                   " are more than a grid has room for: give a step fewer tokens"};
  std::vector<uint64_t> words(args.begin(), args.end());
  words.push_back(static_cast<uint64_t>(programs));
  auto parameters = packParameters(info, words);
  if (!parameters.isOk())
    return parameters.status();
  LaunchShape shape;
  shape.grid[0] = static_cast<uint32_t>(blocks);
  std::copy(std::begin(info.block), std::end(info.block), shape.block);
  return stream.launch(function, shape, parameters.value());
}

} // namespace kvq
