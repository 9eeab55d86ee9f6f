// SPDX-License-Identifier: Apache-2.0
//
// What does not depend on which accelerator it is.
#include "runtime/device/accelerator.h"

#include <cstring>

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

} // namespace kvq
