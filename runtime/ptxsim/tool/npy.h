// SPDX-License-Identifier: Apache-2.0
//
// Arrays in NumPy's file format, versions 1 and 2, in C order and little-endian. A file is data of a stranger: its
// header is bounds-checked, and nothing is allocated that the file does not fill.
#pragma once

#include "runtime/ptxsim/tool/scalar.h"

#include <span>

namespace kvq::ptxsim {

struct Array {
  const ScalarType *type = nullptr;
  std::vector<int64_t> shape;
  std::vector<uint8_t> data;
};

// Bytes of an array; InvalidArgument beyond 2^40.
Result<int64_t> arrayBytes(const ScalarType &type, const std::vector<int64_t> &shape);
Result<Array> parseNpy(std::span<const uint8_t> file); // messages do not name the file
std::string npyHeader(const ScalarType &type, const std::vector<int64_t> &shape);

Result<std::vector<uint8_t>> readFile(const std::string &path);
Status writeFile(const std::string &path, std::string_view head, std::span<const uint8_t> data);
Result<Array> readNpy(const std::string &path);
Status writeNpy(const std::string &path, const Array &array);

} // namespace kvq::ptxsim
