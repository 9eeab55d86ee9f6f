// SPDX-License-Identifier: Apache-2.0
//
// A file has a line for each part of its key, the schedule, and the SHA-256 of all lines before the last:
//   kvq schedule 1
//   request: attend:k4c32-v4t32:...
//   score:
//   level: x86-64-v4
//   compiler: 5be0cd19...
//   machine: {"caches":...}
//   schedule: tile_tokens=64,rows=8,vectors=8,prefetch=1
//   checksum: e3b0c442...
#include "runtime/jit/schedule_store.h"

#include "runtime/jit/store_file.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

namespace kvq {

namespace {

constexpr uint64_t kMostBytes = 1 << 16;
constexpr std::string_view kSchedule = "schedule: ", kChecksum = "checksum: ";

std::string linesOf(const ScheduleKey &key) {
  return "kvq schedule 1\nrequest: " + key.request + "\nscore: " + key.score + "\nlevel: " + key.level +
         "\ncompiler: " + key.compiler + "\nmachine: " + key.machine + "\n";
}

std::string fileOf(const ScheduleKey &key, std::string_view schedule) {
  std::string text = linesOf(key) + std::string(kSchedule) + std::string(schedule) + "\n";
  return text + std::string(kChecksum) + toHex(sha256(text)) + "\n";
}

} // namespace

std::string ScheduleStore::path(const ScheduleKey &key) const {
  return directory_ + "/" + kernelKey({"schedule", linesOf(key)}) + ".schedule";
}

std::string ScheduleStore::read(const ScheduleKey &key) const {
  if (directory_.empty())
    return "";
  const auto file = readStoreFile(path(key), kMostBytes);
  if (!file.isOk())
    return "";
  const std::string_view text = file.value();
  const size_t begin = linesOf(key).size() + kSchedule.size(), end = text.find('\n', std::min(begin, text.size()));
  if (begin > text.size() || end == text.npos)
    return "";
  const std::string schedule(text.substr(begin, end - begin));
  return text == fileOf(key, schedule) && parseSchedule(schedule).isOk() ? schedule : "";
}

Status ScheduleStore::checkFolder() const {
  if (!directory_.empty())
    return Status::ok();
  return {Code::FailedPrecondition,
          "this context has no kernel store, where chosen schedules are kept: give store_dir a folder"};
}

Status ScheduleStore::write(const ScheduleKey &key, const std::string &schedule) const {
  KVQ_RETURN_IF_ERROR(checkFolder());
  return writeStoreFile(directory_, path(key), {fileOf(key, schedule)});
}

Status ScheduleStore::forget(const ScheduleKey &key) const {
  KVQ_RETURN_IF_ERROR(checkFolder());
  if (::unlink(path(key).c_str()) == 0 || errno == ENOENT)
    return Status::ok();
  return storePermission("the chosen schedule " + path(key) + " cannot be removed (" + std::strerror(errno) + ")");
}

} // namespace kvq
