// SPDX-License-Identifier: Apache-2.0
//
// What stands in a PTX module: its functions and variables, with their declarations read and their bodies as tokens.
// Instructions are not looked at: the compiler that gets them does that.
#pragma once

#include "runtime/jit/ptx_tokens.h"

#include <cstdint>

namespace kvq {

// Half open.
struct TokenRange {
  size_t begin = 0, end = 0;
};

// A variable or a parameter.
struct PtxVariable {
  std::string_view linkage; // .visible, .extern, .weak, .common or empty
  std::string_view space;   // .global, .const, .shared, .param, .reg, .local
  std::string_view type;    // .b32 and so on
  std::string_view name;
  int64_t elementBytes = 0, align = 0; // align: as declared, else that of the type
  bool isArray = false;
  int64_t elements = 1; // 0: an array without a size
  TokenRange whole;     // with the ';' of a variable
  TokenRange initialiser;
  int line = 0;

  int64_t bytes() const { return elements * elementBytes; }
  // Whether it has a name beyond its module, by which the driver's users find it.
  bool isNamedOutside() const {
    return (space == ".global" || space == ".const") && !linkage.empty() && linkage != ".extern";
  }
};

// What a kernel says about its launch; 0: nothing.
struct LaunchBounds {
  uint32_t maxThreads[3] = {0, 0, 0};      // .maxntid
  uint32_t requiredThreads[3] = {0, 0, 0}; // .reqntid: the only size of a block that it may be launched with
  uint32_t minBlocks = 0;                  // .minnctapersm
  uint32_t maxRegisters = 0;               // .maxnreg

  int64_t threads() const; // of a block at most, 0: nothing is said
};

struct PtxFunction {
  bool isEntry = false;
  std::string_view linkage;
  std::string_view name;
  std::vector<PtxVariable> results, parameters;
  LaunchBounds bounds;
  TokenRange whole;
  TokenRange body; // with its braces; empty: a declaration
  int line = 0;

  bool isDefined() const { return body.begin != body.end; }
};

class PtxModule {
public:
  // InvalidArgument names the line. The text must outlive the module.
  static Result<PtxModule> parse(std::string_view text);

  std::string_view text;
  std::vector<PtxToken> tokens;
  std::string_view version;              // "8.0"
  std::vector<std::string_view> targets; // "sm_80", and options of it
  std::vector<PtxFunction> functions;
  std::vector<PtxVariable> variables;

  const PtxFunction *find(std::string_view name) const; // the definition, else a declaration, else NULL
  // The kernel of this name; InvalidArgument lists those that there are.
  Result<const PtxFunction *> entry(std::string_view name) const;
  Status error(int line, const std::string &what) const { return ptxError(text, line, what); }
};

// Reads one declaration of a variable that begins at `at` with its state space, as in a body. `at` is then behind it.
// The tokens must be those of the module.
Result<PtxVariable> readVariable(const PtxModule &module, size_t &at);

// Bytes of a scalar type such as .b32; 0: it is none of that.
int64_t ptxTypeBytes(std::string_view type);

} // namespace kvq
