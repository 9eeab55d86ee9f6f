// SPDX-License-Identifier: Apache-2.0
//
// Loading of the compiler plug-in, and its calls.
#include "runtime/jit/compiler.h"

#include "runtime/jit/library.h"

#include <sstream>

namespace kvq {

Result<std::shared_ptr<const Compiler>> Compiler::load(const char *path) {
  const std::string file = libraryPath(path, "KVQ_COMPILER", "libkvq-compiler.so");
  auto library = Library::open(file);
  if (!library.isOk())
    return Status(Code::Unsupported, "the compiler plug-in " + file + " cannot be loaded (" +
                                         library.status().message() +
                                         "): set KVQ_COMPILER to libkvq-compiler.so or use device \"ref\"");
  const auto find = [&](const char *name, auto &function) { return library.value().find(name, function); };
  kvq_compiler_plugin_version_fn version;
  kvq_compiler_hash_fn hash;
  kvq_compiler_host_levels_fn levels;
  kvq_compiler_targets_fn targets = nullptr;
  std::shared_ptr<Compiler> compiler(new Compiler);
  if (!find("kvq_compiler_plugin_version", version) || !find("kvq_compiler_hash", hash) ||
      !find("kvq_compiler_host_levels", levels) || !find("kvq_compiler_compile", compiler->compile_) ||
      !find("kvq_compiler_free", compiler->free_))
    return Status(Code::Unsupported, file + " is no kvq compiler: set KVQ_COMPILER to libkvq-compiler.so");
  if (version() != KVQ_COMPILER_PLUGIN_VERSION)
    return Status(Code::Unsupported, "the compiler plug-in " + file + " has version " + std::to_string(version()) +
                                         " but this library needs " + std::to_string(KVQ_COMPILER_PLUGIN_VERSION) +
                                         ": install both from one build");
  if (!find("kvq_compiler_targets", targets) || !find("kvq_compiler_schedules", compiler->schedules_))
    return Status(Code::Unsupported, file + " is no whole kvq compiler: set KVQ_COMPILER to libkvq-compiler.so");
  compiler->hash_ = hash();
  compiler->targets_ = targets();
  std::istringstream words(levels());
  for (std::string level; words >> level;)
    compiler->levels_.push_back(level);
  if (compiler->levels_.empty())
    return Status(Code::Unsupported,
                  "the compiler plug-in " + file + " has no level that this processor can run: use device \"ref\"");
  return std::shared_ptr<const Compiler>(std::move(compiler));
}

// Whether an error has a place, "line:column: ...", which is one in a text of the user's.
static bool hasPlace(const char *message) { return message && *message >= '0' && *message <= '9'; }

Result<CompiledKernel> Compiler::compile(const std::string &text, bool isSource, const std::string &score,
                                         const std::string &level, const std::string &schedule) const {
  kvq_compile_input input{};
  (isSource ? input.source : input.request) = text.c_str();
  input.level = level.c_str();
  input.score = score.empty() ? nullptr : score.c_str();
  input.schedule = schedule.empty() ? nullptr : schedule.c_str();
  kvq_compile_output *output = compile_(&input);
  if (!output)
    return Status(Code::Internal,
                  "the compiler gave no answer for " + (isSource ? "a user kernel" : text) + ": please report it");
  Result<CompiledKernel> result = Status(Code::Internal, "");
  if (output->object) {
    const auto *bytes = static_cast<const uint8_t *>(output->object);
    result =
        CompiledKernel{{bytes, bytes + output->object_bytes}, output->entry, output->signature, output->compile_ms};
  } else {
    // A mistake in a user's text is the user's to change; a built-in request that fails is ours.
    const bool isUsers = isSource || (!score.empty() && hasPlace(output->message));
    result = Status(isUsers ? Code::InvalidArgument : Code::Internal, output->message ? output->message : "");
  }
  free_(output);
  return result;
}

Result<std::string> Compiler::scheduleText(const std::string &request, const std::string &level,
                                           const char *schedule) const {
  kvq_compile_input input{};
  input.request = request.c_str();
  input.level = level.c_str();
  input.schedule = schedule;
  kvq_compile_output *output = schedules_(&input);
  if (!output)
    return Status(Code::Internal, "the compiler lists no schedules for " + request + ": please report it");
  Result<std::string> result =
      output->object ? Result(std::string(static_cast<const char *>(output->object), output->object_bytes))
                     : Result<std::string>(Status(Code::InvalidArgument, output->message ? output->message : ""));
  free_(output);
  return result;
}

Result<ScheduleSpace> Compiler::schedules(const std::string &request, const std::string &level) const {
  auto text = scheduleText(request, level, nullptr);
  if (!text.isOk())
    return text.status();
  auto space = parseScheduleSpace(text.value());
  if (!space.isOk())
    return Status(Code::Internal, "the compiler's list of schedules for " + request + " is wrong (" +
                                      space.status().message() + "): please report it");
  return space;
}

Status Compiler::checkSchedule(const std::string &request, const std::string &level,
                               const std::string &schedule) const {
  return scheduleText(request, level, schedule.c_str()).status();
}

} // namespace kvq
