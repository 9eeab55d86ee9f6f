// SPDX-License-Identifier: Apache-2.0
//
// Streams and events. Work is done as late as the rules allow, when somebody waits for it: a host that reads a result
// before it has waited, or a stream that relies on another without an event, sees the old bytes every time. Streams
// that are not ordered run one after the other, in an order that the seed chooses.
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>

namespace kvq::ptxsim {

using StreamId = uint64_t;
using EventId = uint64_t;
using Task = std::function<Status()>;

class WorkQueue {
public:
  explicit WorkQueue(uint64_t seed);
  // The default stream waits for blocking ones and they for it, as CUDA's legacy default stream.
  static constexpr StreamId kDefaultStream = 0;

  StreamId createStream(bool blocking);
  bool hasStream(StreamId stream) const { return streams_.count(stream) != 0; }
  void destroyStream(StreamId stream); // what is left of its work is dropped: run it before
  EventId createEvent();
  bool hasEvent(EventId event) const { return events_.count(event) != 0; }
  void destroyEvent(EventId event) { events_.erase(event); }

  void push(StreamId stream, Task task);
  void record(EventId event, StreamId stream);
  void wait(StreamId stream, EventId event); // an event that was never recorded holds nobody up
  bool done(StreamId stream) const;
  bool eventDone(EventId event) const;

  // Work until the stream, the event, or everything is done. The first error ends it, and drops all work of all
  // streams: after a failure nothing runs.
  Status run(StreamId stream);
  Status runEvent(EventId event);
  Status runAll();
  Status stepEvent(EventId event); // of the stream where it was recorded
  Status step(StreamId stream); // one piece of work of the stream, and what it waits for: what a poll finds done later

private:
  struct Mark {
    StreamId stream = 0;
    uint64_t position = 0;
  };
  struct Item {
    Task task; // empty: waits for the mark
    Mark mark;
  };
  struct Stream {
    bool blocking = true;
    uint64_t pushed = 0, executed = 0;
    std::deque<Item> items;
  };
  void add(StreamId stream, Item item);
  bool reached(const Mark &mark) const;
  Status runTo(Mark mark);
  StreamId choose(); // a stream whose next piece of work waits for nobody
  void drop();

  std::map<StreamId, Stream> streams_;
  std::map<EventId, Mark> events_;
  uint64_t next_ = 1, random_;
};

} // namespace kvq::ptxsim
