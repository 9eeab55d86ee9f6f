// SPDX-License-Identifier: Apache-2.0
//
// Where a cache lies and how the host works on it there: in the host's memory by memcpy and memset, in an accelerator's
// by its stream. What is handed to a stream is done later, in order, and what goes wrong with it is sticky: the calls
// below return nothing, and state() and wait() give the first failure, after which a device answers nothing else.
#pragma once

#include "runtime/device/device.h"

#include <cstdint>
#include <cstring>

namespace kvq {

class CacheMemory {
public:
  explicit CacheMemory(Accelerator *accelerator); // NULL: the host's
  ~CacheMemory();                                 // after all work
  CacheMemory(const CacheMemory &) = delete;
  CacheMemory &operator=(const CacheMemory &) = delete;
  bool isHost() const { return !accelerator_; }
  Accelerator *accelerator() const { return accelerator_; }

  void copy(DeviceAddress to, DeviceAddress from, int64_t bytes) {
    if (isHost())
      std::memcpy(at(to), at(from), bytes);
    else
      note(stream_->copy(to, from, bytes));
  }
  // Host memory must stay as it is until wait().
  void copyIn(DeviceAddress to, const void *from, int64_t bytes) {
    if (isHost())
      std::memcpy(at(to), from, bytes);
    else
      note(stream_->upload(to, from, bytes));
  }
  void copyOut(void *to, DeviceAddress from, int64_t bytes) {
    if (isHost())
      std::memcpy(to, at(from), bytes);
    else
      note(stream_->download(to, from, bytes));
  }
  void clear(DeviceAddress to, int64_t bytes) {
    if (isHost())
      std::memset(at(to), 0, bytes);
    else
      note(stream_->fill(to, bytes, 0));
  }
  // `rows` pieces of `width` bytes, whose begins are a pitch apart.
  void copyRows(DeviceAddress to, int64_t toPitch, DeviceAddress from, int64_t fromPitch, int64_t width, int64_t rows) {
    if (!isHost())
      return note(stream_->copyRows(to, toPitch, from, fromPitch, width, rows));
    for (int64_t row = 0; row < rows; ++row)
      std::memcpy(at(to + row * toPitch), at(from + row * fromPitch), width);
  }
  // To a tensor of the caller's: that its address is wrong is his mistake, and no failure of the cache's memory.
  Status copyRowsOut(DeviceAddress to, int64_t toPitch, DeviceAddress from, int64_t fromPitch, int64_t width,
                     int64_t rows) {
    if (!isHost())
      return stream_->copyRows(to, toPitch, from, fromPitch, width, rows);
    copyRows(to, toPitch, from, fromPitch, width, rows);
    return Status::ok();
  }
  void clearRows(DeviceAddress to, int64_t pitch, int64_t width, int64_t rows) {
    if (!isHost())
      return note(stream_->fillRows(to, pitch, width, rows, 0));
    for (int64_t row = 0; row < rows; ++row)
      std::memset(at(to + row * pitch), 0, width);
  }

  // Until all that was handed in is done.
  Status wait() {
    if (!isHost()) {
      note(stream_->synchronize());
      ++waits_;
    }
    return failure_;
  }
  const Status &state() const { return failure_; }
  int64_t waits() const { return waits_; } // so far: whether what was handed in at some time is done

  // Runs programs of a kernel: on the host's threads, or later on the stream.
  Status launch(const Device &device, const Kernel &kernel, std::span<const uint64_t> args, const int64_t grid[3],
                Spread spread) {
    if (isHost())
      return device.launch(kernel, args.data(), grid, spread);
    KVQ_RETURN_IF_ERROR(failure_);
    return launchPrograms(*stream_, *kernel.function(), args, grid);
  }
  Status launch(const Device &device, const Kernel &kernel, std::span<const uint64_t> args, int64_t programs,
                Spread spread) {
    const int64_t grid[3] = {programs, 1, 1};
    return launch(device, kernel, args, grid, spread);
  }

  // While it lives, work goes to a stream of the caller's, behind all that came before; what comes afterwards is behind
  // it. NULL: the device's own stream, where the cache's work is otherwise.
  class OnStream {
  public:
    OnStream(CacheMemory &memory, Stream *stream) : memory_(memory), isOther_(stream && !memory.isHost()) {
      if (isOther_)
        memory_.goTo(*stream);
    }
    ~OnStream() {
      if (isOther_)
        memory_.goTo(memory_.accelerator_->defaultStream());
    }
    OnStream(const OnStream &) = delete;
    OnStream &operator=(const OnStream &) = delete;

  private:
    CacheMemory &memory_;
    const bool isOther_;
  };

private:
  static uint8_t *at(DeviceAddress address) { return reinterpret_cast<uint8_t *>(address); }
  void note(Status status) {
    if (!status.isOk() && failure_.isOk())
      failure_ = std::move(status);
  }
  void goTo(Stream &stream);

  Accelerator *accelerator_;
  Stream *stream_ = nullptr; // never one of the caller's between two calls
  EventRef switched_;
  Status failure_;
  int64_t waits_ = 0;
};

// Memory that a cache takes itself, beside the caller's: where kernels of its device see it. It never becomes smaller.
class Scratch {
public:
  Scratch(const CacheMemory &memory, std::string name) : memory_(memory), name_(std::move(name)) {}
  ~Scratch() { release(); }
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;
  // What was in it is lost if it becomes larger. On an error it is as it was.
  Status reserve(int64_t bytes);
  DeviceAddress address() const { return address_; }
  int64_t bytes() const { return bytes_; }

private:
  void release();

  const CacheMemory &memory_;
  const std::string name_; // for messages
  std::vector<uint8_t> host_;
  DeviceAddress address_ = 0;
  int64_t bytes_ = 0;
};

} // namespace kvq
