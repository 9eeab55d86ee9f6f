// SPDX-License-Identifier: Apache-2.0
//
// A simulated GPU: memory, modules, streams and events in order, and a failure that stays until the GPU is destroyed,
// as a CUDA context keeps one. What the device "ptxsim" and the driver look-alike have in common. Not thread-safe: both
// lock.
#pragma once

#include "runtime/ptxsim/gpu/settings.h"
#include "runtime/ptxsim/gpu/work_queue.h"
#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/simulator.h"

#include <functional>

namespace kvq::ptxsim {

// What went wrong in a launch, in the classes that a driver distinguishes.
struct Failure {
  enum class Kind { None, IllegalAddress, Misaligned, LaunchFailure, Timeout } kind = Kind::None;
  std::string message; // one sentence: the first finding
};
Failure failureOf(const Report &report);

class Gpu {
public:
  explicit Gpu(Settings settings);
  const Settings &settings() const { return settings_; }
  const Failure &failure() const { return failure_; }
  // Called with the report of every launch that ran.
  void onReport(std::function<void(const Report &)> hook) { hook_ = std::move(hook); }

  // ResourceExhausted beyond the settings' memory.
  Result<uint64_t> allocate(int64_t bytes, std::string name);
  Status release(uint64_t base); // after all work that was handed in
  int64_t freeBytes() const;
  // InvalidArgument unless all bytes lie in one allocation.
  Status checkRange(uint64_t address, int64_t bytes) const;

  Result<ModuleRef> load(std::string_view text, std::string file) { return simulator_.load(text, std::move(file)); }

  // Work on a stream; ranges and launches are checked at once, what they do comes later (work_queue.h). Host memory
  // must stay until the stream was waited for; `copyIn` with a vector has its own.
  Status copyIn(StreamId stream, uint64_t to, const void *from, int64_t bytes);
  Status copyIn(StreamId stream, uint64_t to, std::vector<uint8_t> from);
  Status copyOut(StreamId stream, void *to, uint64_t from, int64_t bytes);
  Status copy(StreamId stream, uint64_t to, uint64_t from, int64_t bytes);
  // `value`: a pattern of 1, 2 or 4 bytes, again and again.
  Status fill(StreamId stream, uint64_t to, int64_t bytes, std::span<const uint8_t> value);
  // InvalidArgument: wrong sizes or parameters, more threads than the kernel was made for; FailedPrecondition: more
  // dynamic shared memory than `sharedLimit`.
  Status launch(StreamId stream, ModuleRef module, Launch launch, int64_t sharedLimit);

  WorkQueue &queue() { return queue_; }
  // Each does the work and answers the failure, an old one too.
  Status synchronize(StreamId stream) { return finish(queue_.run(stream)); }
  Status synchronizeEvent(EventId event) { return finish(queue_.runEvent(event)); }
  Status synchronizeAll() { return finish(queue_.runAll()); }
  Status poll(StreamId stream) { return finish(queue_.step(stream)); }
  Status pollEvent(EventId event) { return finish(queue_.stepEvent(event)); }
  Status state() const; // the failure as a Status

private:
  Status finish(Status status);
  Status checkLaunch(const KernelAttributes &kernel, const Launch &launch, int64_t sharedLimit) const;
  Status runLaunch(const LoadedModule &module, const Launch &launch);
  void writeReport(const Report &report);

  Settings settings_;
  Simulator simulator_;
  WorkQueue queue_;
  Failure failure_;
  std::function<void(const Report &)> hook_;
};

} // namespace kvq::ptxsim
