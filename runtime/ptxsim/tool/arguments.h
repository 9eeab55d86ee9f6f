// SPDX-License-Identifier: Apache-2.0
//
// The command line of ptx-run.
#pragma once

#include "runtime/ptxsim/simulator.h"
#include "runtime/ptxsim/tool/scalar.h"

namespace kvq::ptxsim {

// One --arg.
struct ParameterSpec {
  enum class Kind { Scalar, In, InOut, Out, Fill, Bytes } kind = Kind::Scalar;
  std::string text; // as it was given
  const ScalarType *type = nullptr;
  std::vector<uint8_t> value; // Scalar, Fill: one element
  std::string file;           // In, InOut, Bytes
  std::string output;         // InOut, Out, Fill: where it is written to afterwards; empty: nowhere
  std::vector<int64_t> shape; // Out, Fill
};

struct Command {
  std::string file, kernel, json;
  Dim grid, block;
  int64_t shared = 0;
  std::vector<ParameterSpec> parameters;
  Options options;
  bool list = false, quiet = false, help = false;
};

extern const char *const kUsage;

// The words behind the program's name.
Result<Command> parseCommand(const std::vector<std::string> &words);
Result<ParameterSpec> parseParameter(const std::string &text);

} // namespace kvq::ptxsim
