// SPDX-License-Identifier: Apache-2.0
//
// The compiler as an optional plug-in: the one place that loads libkvq-compiler.so. Nothing here knows LLVM, and
// nothing else in the runtime knows that there is a plug-in.
#pragma once

#include "runtime/format/schedule.h"
#include "runtime/format/status.h"

#include <kvq/compiler_plugin.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvq {

// What compiling gives and what the store keeps.
struct CompiledKernel {
  std::vector<uint8_t> object;
  std::string entry, signature;
  double compileMs = 0;
  std::string log = {}; // what a compiler said that succeeded: NVRTC tells spilled registers nowhere else
};

class Compiler {
public:
  // path NULL: $KVQ_COMPILER, else libkvq-compiler.so beside this library. Unsupported where it is absent.
  static Result<std::shared_ptr<const Compiler>> load(const char *path);
  const std::string &hash() const { return hash_; }
  const std::vector<std::string> &levels() const { return levels_; } // of this host, best last
  const std::string &targets() const { return targets_; }            // all, separated by spaces, CPU levels first
  // Thread-safe. `text` is a kernel request, or an IR module where isSource is set; `score` is IR of the score function
  // of a request, or empty; `schedule` is text of one of a request's schedules, or empty: the default. InvalidArgument:
  // a mistake in the user's text, with its place.
  Result<CompiledKernel> compile(const std::string &text, bool isSource, const std::string &score,
                                 const std::string &level, const std::string &schedule = "") const;
  // The schedules that a request can have on a level. Thread-safe. InvalidArgument: no such request or level.
  Result<ScheduleSpace> schedules(const std::string &request, const std::string &level) const;
  // InvalidArgument unless the text is one of them: one sentence with the nearest that is.
  Status checkSchedule(const std::string &request, const std::string &level, const std::string &schedule) const;

private:
  Compiler() = default;
  Result<std::string> scheduleText(const std::string &request, const std::string &level, const char *schedule) const;
  std::string hash_, targets_;
  std::vector<std::string> levels_;
  kvq_compiler_compile_fn compile_ = nullptr;
  kvq_compiler_schedules_fn schedules_ = nullptr;
  kvq_compiler_free_fn free_ = nullptr;
};

} // namespace kvq
