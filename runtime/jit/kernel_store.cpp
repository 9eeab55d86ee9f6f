// SPDX-License-Identifier: Apache-2.0
//
// The kernel store's files. One file, little endian:
//   magic[8] store version:u32 ABI version:u32 key[64] entry bytes:u32 signature bytes:u32 object bytes:u64
//   log bytes:u64 compile ms:f64 checksum[32] entry signature log object
// The checksum is SHA-256 over all of the file but itself. Files appear by rename, so a reader never sees half of one.
#include "runtime/jit/kernel_store.h"

#include "runtime/jit/store_file.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kvq {

namespace {

constexpr char kMagic[8] = {'K', 'V', 'Q', 'K', 'E', 'R', 'N', '\n'};
constexpr uint32_t kStoreVersion = 2;
constexpr uint64_t kMaxEntryBytes = uint64_t(1) << 28;

struct Header {
  char magic[8];
  uint32_t storeVersion, abiVersion;
  char key[64];
  uint32_t entryBytes, signatureBytes;
  uint64_t objectBytes, logBytes;
  double compileMs;
  uint8_t checksum[32];
};
static_assert(sizeof(Header) == 144, "the file's layout");

Result<std::string> defaultDirectory() {
  if (const char *store = std::getenv("KVQ_STORE"); store && *store)
    return std::string(store);
  if (const char *cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/')
    return std::string(cache) + "/kvq";
  if (const char *home = std::getenv("HOME"); home && *home)
    return std::string(home) + "/.cache/kvq";
  return storePermission("there is no folder for compiled kernels because HOME is not set");
}

Status checkTrusted(const std::string &directory) {
  struct stat info;
  if (::stat(directory.c_str(), &info) != 0)
    return storePermission("the kernel store " + directory + " cannot be opened (" + std::strerror(errno) + ")");
  if (!S_ISDIR(info.st_mode))
    return storePermission("the kernel store " + directory + " is not a folder");
  // Root may write anywhere anyway; an image that ships a store has it owned by root.
  if (info.st_uid != ::geteuid() && info.st_uid != 0)
    return storePermission("the kernel store " + directory + " is refused because it belongs to user " +
                           std::to_string(info.st_uid) + " and its code would run as user " +
                           std::to_string(::geteuid()));
  if (info.st_mode & (S_IWGRP | S_IWOTH))
    return storePermission("the kernel store " + directory + " is refused because others may write to it (chmod go-w)");
  return Status::ok();
}

std::string checksummed(Header header, std::string_view payload) {
  std::memset(header.checksum, 0, sizeof(header.checksum));
  Sha256 hash;
  hash.update(&header, sizeof(header));
  hash.update(payload.data(), payload.size());
  Digest digest = hash.finish();
  return {reinterpret_cast<const char *>(digest.data()), digest.size()};
}

Result<CompiledKernel> parseEntry(const std::string &bytes, const std::string &key) {
  Header header;
  if (bytes.size() < sizeof(header))
    return Status(Code::Corrupt, "it is too short");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.storeVersion != kStoreVersion ||
      header.abiVersion != KVQ_KERNEL_ABI_VERSION)
    return Status(Code::Corrupt, "it is of another version");
  if (key != std::string_view(header.key, sizeof(header.key)))
    return Status(Code::Corrupt, "it carries another key");
  std::string_view payload = std::string_view(bytes).substr(sizeof(header));
  if (std::memcmp(checksummed(header, payload).data(), header.checksum, sizeof(header.checksum)) != 0)
    return Status(Code::Corrupt, "its checksum is wrong");
  const uint64_t names = uint64_t(header.entryBytes) + header.signatureBytes;
  if (names > payload.size() || header.logBytes > payload.size() - names ||
      header.objectBytes != payload.size() - names - header.logBytes)
    return Status(Code::Corrupt, "its sizes are wrong");
  CompiledKernel kernel;
  const auto take = [&](uint64_t bytes) {
    const std::string_view part = payload.substr(0, bytes);
    payload.remove_prefix(bytes);
    return part;
  };
  kernel.entry = take(header.entryBytes);
  kernel.signature = take(header.signatureBytes);
  kernel.log = take(header.logBytes);
  kernel.object.assign(payload.begin(), payload.end());
  kernel.compileMs = header.compileMs;
  return kernel;
}

// An exclusive lock on a file beside the entry, held across processes; a crash releases it. The file goes away with the
// last holder, so whoever got the lock of a file that is no longer there tries again.
class KeyLock {
public:
  explicit KeyLock(std::string path) : path_(std::move(path)) {}
  Status lock();
  ~KeyLock() {
    if (fd_ < 0)
      return;
    ::unlink(path_.c_str());
    ::close(fd_);
  }

private:
  std::string path_;
  int fd_ = -1;
};

Status KeyLock::lock() {
  for (;;) {
    int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
      return storePermission("the lock " + path_ + " cannot be created (" + std::strerror(errno) + ")");
    int locked;
    do
      locked = ::flock(fd, LOCK_EX);
    while (locked != 0 && errno == EINTR);
    struct stat mine, there;
    bool same = locked == 0 && ::fstat(fd, &mine) == 0 && ::stat(path_.c_str(), &there) == 0 &&
                mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
    if (same) {
      fd_ = fd;
      return Status::ok();
    }
    ::close(fd);
    if (locked != 0)
      return storePermission("the lock " + path_ + " cannot be taken (" + std::strerror(errno) + ")");
  }
}

} // namespace

std::string kernelKey(std::string_view text, bool isSource, std::string_view level, std::string_view compilerHash,
                      std::string_view schedule) {
  const std::string_view parts[] = {isSource ? "source" : "request", text, level, compilerHash, schedule};
  return kernelKey(std::span(parts).first(schedule.empty() ? 4 : 5));
}

std::string kernelKey(std::initializer_list<std::string_view> parts) {
  return kernelKey(std::span(parts.begin(), parts.size()));
}

std::string kernelKey(std::span<const std::string_view> parts) {
  // Each part with its length: two different lists of parts never give one byte string.
  std::string all = "kvq-kernel abi " + std::to_string(KVQ_KERNEL_ABI_VERSION);
  for (std::string_view part : parts) {
    all += "\n" + std::to_string(part.size()) + ":";
    all += part;
  }
  return toHex(sha256(all));
}

Result<KernelStore> KernelStore::open(const char *directory, Access access) {
  KernelStore store;
  if (directory && !*directory)
    return store;
  if (directory) {
    store.directory_ = directory;
  } else {
    auto found = defaultDirectory();
    if (!found.isOk())
      return found.status();
    store.directory_ = found.value();
  }
  if (access == Access::ReadWrite && ::access(store.directory_.c_str(), F_OK) != 0) {
    std::error_code error;
    std::filesystem::path path(store.directory_);
    if (path.has_parent_path())
      std::filesystem::create_directories(path.parent_path(), error);
    // Another process may create it at the same moment; what counts is what is there afterwards.
    if (::mkdir(store.directory_.c_str(), 0700) != 0 && errno != EEXIST)
      return storePermission("the kernel store " + store.directory_ + " cannot be created (" + std::strerror(errno) +
                             ")");
  }
  // Symbolic links are resolved once: one that is changed later must not lead past the checks below.
  char resolved[PATH_MAX];
  if (::realpath(store.directory_.c_str(), resolved))
    store.directory_ = resolved;
  KVQ_RETURN_IF_ERROR(checkTrusted(store.directory_));
  if (access == Access::ReadWrite)
    KVQ_RETURN_IF_ERROR(checkStoreWritable(store.directory_));
  return store;
}

Result<CompiledKernel> KernelStore::read(const std::string &key) const {
  auto bytes = readStoreFile(directory_.empty() ? "" : path(key), kMaxEntryBytes);
  if (!bytes.isOk() && bytes.status().code() == Code::FailedPrecondition)
    return Status(Code::FailedPrecondition, "the store has no kernel " + key);
  Result<CompiledKernel> kernel = bytes.status();
  if (bytes.isOk())
    kernel = parseEntry(bytes.value(), key);
  if (!kernel.isOk())
    return Status(Code::Corrupt, "the stored kernel " + path(key) + " is unusable because " +
                                     kernel.status().message() + ": remove it");
  return kernel;
}

Status KernelStore::write(const std::string &key, const CompiledKernel &kernel) const {
  if (directory_.empty())
    return Status::ok();
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.storeVersion = kStoreVersion;
  header.abiVersion = KVQ_KERNEL_ABI_VERSION;
  std::memcpy(header.key, key.data(), std::min(key.size(), sizeof(header.key)));
  header.entryBytes = uint32_t(kernel.entry.size());
  header.signatureBytes = uint32_t(kernel.signature.size());
  header.objectBytes = kernel.object.size();
  header.logBytes = kernel.log.size();
  header.compileMs = kernel.compileMs;
  std::string payload = kernel.entry + kernel.signature + kernel.log;
  payload.append(reinterpret_cast<const char *>(kernel.object.data()), kernel.object.size());
  std::memcpy(header.checksum, checksummed(header, payload).data(), sizeof(header.checksum));

  return writeStoreFile(directory_, path(key), {{reinterpret_cast<const char *>(&header), sizeof(header)}, payload});
}

Result<CompiledKernel> KernelStore::readOrCompile(const std::string &key,
                                                  const std::function<Result<CompiledKernel>()> &compile,
                                                  bool &compiled) const {
  compiled = false;
  auto stored = read(key);
  if (stored.isOk())
    return stored;
  KeyLock lock(path(key) + ".lock");
  if (!directory_.empty()) {
    KVQ_RETURN_IF_ERROR(lock.lock());
    // Whoever held the lock before may have written it.
    stored = read(key);
    if (stored.isOk())
      return stored;
  }
  auto fresh = compile();
  if (!fresh.isOk())
    return fresh;
  KVQ_RETURN_IF_ERROR(write(key, fresh.value()));
  compiled = true;
  return fresh;
}

} // namespace kvq
