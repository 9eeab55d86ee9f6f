// SPDX-License-Identifier: Apache-2.0
//
// Devices with memory and queues of their own. The simulator of PTX implements this, and CUDA through its driver's API:
// what either cannot tell (how long something took, on the simulator) is an Unsupported. All calls are
// thread-safe.
//
// Work on a stream is done in the order in which it was handed in, some time later; streams are ordered among each
// other by events alone. A call checks what it is given at once; what goes wrong while the work is done is the Status
// of the next wait, and of every call after it: after a failure the device answers nothing else.
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

using DeviceAddress = uint64_t; // 0: none

struct FunctionInfo {
  struct Parameter {
    int64_t offset, size; // bytes in the parameter buffer
  };
  std::string name;
  std::vector<Parameter> parameters;
  int64_t parameterBytes = 0;
  int64_t sharedBytes = 0, localBytes = 0; // static, of a block; of a thread
  uint32_t maxThreads = 0;                 // of a block
  uint32_t block[3] = {0, 0, 0};           // the only size that it may be launched with; 0: any
};

// A kernel of a module, which it keeps.
class DeviceFunction {
public:
  virtual ~DeviceFunction() = default;
  virtual const FunctionInfo &info() const = 0;
  // How many blocks a multiprocessor holds at once, as far as the device knows.
  virtual Result<int> blocksPerProcessor(int threads, int64_t dynamicShared) const = 0;
};
using DeviceFunctionRef = std::shared_ptr<const DeviceFunction>;

class DeviceModule {
public:
  virtual ~DeviceModule() = default;
  virtual std::vector<std::string> functions() const = 0;
  virtual Result<DeviceFunctionRef> function(std::string_view name) const = 0; // InvalidArgument: there is none
  // Address and bytes of a variable in global memory.
  virtual Result<std::pair<DeviceAddress, int64_t>> variable(std::string_view name) const = 0;
};
using DeviceModuleRef = std::shared_ptr<const DeviceModule>;

struct LaunchShape {
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  int64_t dynamicShared = 0; // bytes
};

class Stream;

// A point in a stream.
class Event {
public:
  virtual ~Event() = default;
  virtual Status synchronize() = 0; // an event that was never recorded is done
  virtual Result<bool> done() = 0;
  virtual Result<double> millisecondsSince(const Event &begin) = 0;
};
using EventRef = std::shared_ptr<Event>;

// Host memory that is read or written by a stream's work must stay as it is until the stream was waited for.
class Stream {
public:
  virtual ~Stream() = default; // after its work
  virtual Status upload(DeviceAddress to, const void *from, int64_t bytes) = 0;
  virtual Status download(void *to, DeviceAddress from, int64_t bytes) = 0;
  virtual Status copy(DeviceAddress to, DeviceAddress from, int64_t bytes) = 0; // within the device
  virtual Status fill(DeviceAddress to, int64_t bytes, uint8_t value) = 0;
  // The same for `rows` pieces of `width` bytes each, whose begins are a pitch apart. A device that has one call for
  // them says so.
  virtual Status copyRows(DeviceAddress to, int64_t toPitch, DeviceAddress from, int64_t fromPitch, int64_t width,
                          int64_t rows) {
    for (int64_t row = 0; row < rows; ++row)
      if (Status status = copy(to + row * toPitch, from + row * fromPitch, width); !status.isOk())
        return status;
    return Status::ok();
  }
  virtual Status fillRows(DeviceAddress to, int64_t pitch, int64_t width, int64_t rows, uint8_t value) {
    for (int64_t row = 0; row < rows; ++row)
      if (Status status = fill(to + row * pitch, width, value); !status.isOk())
        return status;
    return Status::ok();
  }
  // `parameters`: FunctionInfo::parameterBytes.
  virtual Status launch(const DeviceFunction &function, const LaunchShape &shape,
                        std::span<const uint8_t> parameters) = 0;
  virtual Status record(Event &event) = 0;
  virtual Status wait(const Event &event) = 0; // later work of this stream comes after the event
  virtual Status synchronize() = 0;
  virtual Result<bool> done() = 0;
};
using StreamRef = std::shared_ptr<Stream>;

class Accelerator {
public:
  virtual ~Accelerator() = default;
  // Aligned to 256 bytes, uninitialised. ResourceExhausted names what is free. `name` is for messages.
  virtual Result<DeviceAddress> allocate(int64_t bytes, const std::string &name) = 0;
  virtual Status release(DeviceAddress address) = 0; // after all work that was handed in
  virtual Result<int64_t> freeBytes() const = 0;
  // The stream that is always there. It and streams of createStream know nothing of each other.
  virtual Stream &defaultStream() = 0;
  virtual Result<StreamRef> createStream() = 0;
  virtual Result<EventRef> createEvent() = 0;
  // PTX text. The error of text that the device cannot run names the line.
  virtual Result<DeviceModuleRef> load(std::string_view text, const std::string &file) = 0;
  virtual Status synchronize() = 0;     // all streams
  virtual int processors() const = 0;   // multiprocessors
  virtual std::string name() const = 0; // of the GPU, as its maker calls it
  // One line for people: name, compute capability, memory, driver.
  virtual std::string description() const = 0;
};

// How many warps of a kernel run at once, on all multiprocessors together, in blocks of the kernel's own size: launches
// of more warps take turns. InvalidArgument where it has none (.reqntid).
Result<int64_t> residentWarps(const Accelerator &accelerator, const DeviceFunction &function);

// The parameter buffer of a launch from one word for each parameter: its low bytes. InvalidArgument where a parameter
// has more than 8.
Result<std::vector<uint8_t>> packParameters(const FunctionInfo &function, std::span<const uint64_t> words);

// Hands in a built-in kernel (kernel_abi.h) over a grid of programs: blocks of the kernel's
// own size, and the number of programs along dimension 0 as one more parameter. InvalidArgument where `args` are too
// few or too many, or the grid is too large.
Status launchPrograms(Stream &stream, const DeviceFunction &function, std::span<const uint64_t> args,
                      const int64_t grid[3]);
inline Status launchPrograms(Stream &stream, const DeviceFunction &function, std::span<const uint64_t> args,
                             int64_t programs) {
  const int64_t grid[3] = {programs, 1, 1};
  return launchPrograms(stream, function, args, grid);
}

} // namespace kvq
