// SPDX-License-Identifier: Apache-2.0
//
// PTX text with the usual head, for tests of the reader.
#pragma once

#include "runtime/ptxsim/ptx/reader.h"

#include <gtest/gtest.h>

namespace kvq::ptxsim {

// Three lines: what follows begins in line 4.
inline const std::string kHead = ".version 8.0\n.target sm_80\n.address_size 64\n";

// A kernel with a few registers, whose instructions begin in line 8.
inline std::string kernel(const std::string &body) {
  return kHead +
         ".visible .entry k(.param .u64 p)\n{\n.reg .pred %p<4>;\n"
         ".reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f32 %f<8>;\n" +
         body + "\n}\n";
}

inline Module read(const std::string &text) {
  Result<Module> module = parse(text, "a.ptx");
  EXPECT_TRUE(module.isOk()) << module.status().message() << "\n" << text;
  return module.isOk() ? std::move(module.value()) : Module();
}

inline std::string refusal(const std::string &text) {
  Result<Module> module = parse(text, "a.ptx");
  EXPECT_FALSE(module.isOk()) << text;
  return module.status().message();
}

// The only instruction of the text, which stands in a kernel.
inline Instruction readOne(const std::string &text) {
  Module module = read(kernel(text));
  if (module.functions.size() != 1 || module.functions[0].instructions.size() != 1) {
    ADD_FAILURE() << "not one instruction: " << text;
    Instruction nothing;
    nothing.operands.resize(8);
    return nothing;
  }
  return module.functions[0].instructions[0];
}

} // namespace kvq::ptxsim
