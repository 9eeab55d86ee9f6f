// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/store_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kvq {

namespace {

class File {
public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0)
      ::close(fd_);
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;
  int fd() const { return fd_; }
  bool isOpen() const { return fd_ >= 0; }
  bool readAll(std::string &bytes, uint64_t most) const;
  bool writeAll(std::string_view bytes) const;

private:
  int fd_;
};

bool File::readAll(std::string &bytes, uint64_t most) const {
  struct stat info;
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode) || uint64_t(info.st_size) > most ||
      (info.st_mode & (S_IWGRP | S_IWOTH)))
    return false;
  bytes.resize(size_t(info.st_size));
  for (size_t at = 0; at < bytes.size();) {
    ssize_t got = ::read(fd_, bytes.data() + at, bytes.size() - at);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return false;
    at += size_t(got);
  }
  return true;
}

bool File::writeAll(std::string_view bytes) const {
  while (!bytes.empty()) {
    ssize_t put = ::write(fd_, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR)
      continue;
    if (put <= 0)
      return false;
    bytes.remove_prefix(size_t(put));
  }
  return true;
}

// A file of this process in the store's folder under a name that no other writer has.
Result<int> createTemporary(const std::string &directory, std::string &name) {
  name = directory + "/.tmp-XXXXXX";
  int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0)
    return storePermission("the kernel store " + directory + " cannot be written (" + std::strerror(errno) + ")");
  return fd;
}

} // namespace

Status storePermission(const std::string &what) {
  return {Code::Permission, what + ": set KVQ_STORE (or store_dir) to a folder of your own, or store_dir to \"\""};
}

Result<std::string> readStoreFile(const std::string &path, uint64_t most) {
  File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.isOpen())
    return Status(Code::FailedPrecondition, "there is no file " + path);
  std::string bytes;
  if (!file.readAll(bytes, most))
    return Status(Code::Corrupt, "it cannot be read, is no plain file or others may write to it");
  return bytes;
}

Status writeStoreFile(const std::string &directory, const std::string &path,
                      std::initializer_list<std::string_view> parts) {
  std::string name;
  auto fd = createTemporary(directory, name);
  if (!fd.isOk())
    return fd.status();
  File file(fd.value());
  bool written = true;
  for (std::string_view part : parts)
    written = written && file.writeAll(part);
  if (written && ::rename(name.c_str(), path.c_str()) == 0)
    return Status::ok();
  Status failed =
      storePermission("the kernel store " + directory + " cannot be written (" + std::strerror(errno) + ")");
  ::unlink(name.c_str());
  return failed;
}

Status checkStoreWritable(const std::string &directory) {
  std::string name;
  auto fd = createTemporary(directory, name);
  if (!fd.isOk())
    return fd.status();
  ::close(fd.value());
  ::unlink(name.c_str());
  return Status::ok();
}

} // namespace kvq
