// SPDX-License-Identifier: Apache-2.0
//
// A file has a line for each part of its key, the choice, and the SHA-256 of all lines before the last:
//   kvq schedule 1
//   request: attend:k4c32-v4t32:...
//   score:
//   level: x86-64-v4
//   compiler: 5be0cd19...
//   machine: {"caches":...}
//   schedule: tile_tokens=64,rows=8,vectors=8,prefetch=1
//   checksum: e3b0c442...
#include "runtime/jit/choice_store.h"

#include "runtime/format/schedule.h"
#include "runtime/format/split_policy.h"
#include "runtime/jit/store_file.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

namespace kvq {

static constexpr uint64_t kMostBytes = 1 << 16;

ChoiceStore ChoiceStore::schedules(const KernelStore &store) {
  return {store.directory(), "schedule", [](std::string_view text) { return parseSchedule(text).isOk(); }};
}

ChoiceStore ChoiceStore::splits(const KernelStore &store) {
  return {store.directory(), "splits", [](std::string_view text) { return parseSplitPolicy(text).isOk(); }};
}

std::string ChoiceStore::linesOf(const ChoiceKey &key) const {
  return "kvq " + kind_ + " 1\nrequest: " + key.request + "\nscore: " + key.score + "\nlevel: " + key.level +
         "\ncompiler: " + key.compiler + "\nmachine: " + key.machine + "\n";
}

std::string ChoiceStore::fileOf(const ChoiceKey &key, std::string_view choice) const {
  const std::string text = linesOf(key) + kind_ + ": " + std::string(choice) + "\n";
  return text + "checksum: " + toHex(sha256(text)) + "\n";
}

std::string ChoiceStore::path(const ChoiceKey &key) const {
  return directory_ + "/" + kernelKey({kind_, linesOf(key)}) + "." + kind_;
}

std::string ChoiceStore::read(const ChoiceKey &key) const {
  if (directory_.empty())
    return "";
  const auto file = readStoreFile(path(key), kMostBytes);
  if (!file.isOk())
    return "";
  const std::string_view text = file.value();
  const size_t begin = linesOf(key).size() + kind_.size() + 2, end = text.find('\n', std::min(begin, text.size()));
  if (begin > text.size() || end == text.npos)
    return "";
  const std::string choice(text.substr(begin, end - begin));
  return text == fileOf(key, choice) && parses_(choice) ? choice : "";
}

Status ChoiceStore::checkFolder() const {
  if (!directory_.empty())
    return Status::ok();
  return {Code::FailedPrecondition,
          "this context has no kernel store, where what is chosen is kept: give store_dir a folder"};
}

Status ChoiceStore::write(const ChoiceKey &key, const std::string &choice) const {
  KVQ_RETURN_IF_ERROR(checkFolder());
  return writeStoreFile(directory_, path(key), {fileOf(key, choice)});
}

Status ChoiceStore::forget(const ChoiceKey &key) const {
  KVQ_RETURN_IF_ERROR(checkFolder());
  if (::unlink(path(key).c_str()) == 0 || errno == ENOENT)
    return Status::ok();
  return storePermission("the chosen " + kind_ + " " + path(key) + " cannot be removed (" + std::strerror(errno) + ")");
}

} // namespace kvq
