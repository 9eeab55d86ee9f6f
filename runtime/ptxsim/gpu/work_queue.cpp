// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/work_queue.h"

#include <vector>

namespace kvq::ptxsim {

WorkQueue::WorkQueue(uint64_t seed) : random_(seed) { streams_[kDefaultStream]; }

StreamId WorkQueue::createStream(bool blocking) {
  streams_[next_].blocking = blocking;
  return next_++;
}

void WorkQueue::destroyStream(StreamId stream) {
  if (stream != kDefaultStream)
    streams_.erase(stream);
}

EventId WorkQueue::createEvent() {
  events_[next_];
  return next_++;
}

void WorkQueue::add(StreamId stream, Item item) {
  Stream &to = streams_.at(stream);
  to.items.push_back(std::move(item));
  ++to.pushed;
}

void WorkQueue::push(StreamId stream, Task task) {
  if (stream == kDefaultStream) {
    for (const auto &[id, other] : streams_)
      if (id != kDefaultStream && other.blocking && !other.items.empty())
        add(stream, {{}, {id, other.pushed}});
  } else if (const Stream &first = streams_.at(kDefaultStream); streams_.at(stream).blocking && !first.items.empty()) {
    add(stream, {{}, {kDefaultStream, first.pushed}});
  }
  add(stream, {std::move(task), {}});
}

void WorkQueue::record(EventId event, StreamId stream) {
  // A piece of work of its own: on the default stream the event stands for the blocking streams too.
  push(stream, [] { return Status::ok(); });
  events_.at(event) = {stream, streams_.at(stream).pushed};
}

void WorkQueue::wait(StreamId stream, EventId event) {
  const Mark mark = events_.at(event);
  if (!reached(mark))
    add(stream, {{}, mark});
}

bool WorkQueue::reached(const Mark &mark) const {
  const auto found = streams_.find(mark.stream);
  return found == streams_.end() || found->second.executed >= mark.position;
}

bool WorkQueue::done(StreamId stream) const { return streams_.at(stream).items.empty(); }
bool WorkQueue::eventDone(EventId event) const { return reached(events_.at(event)); }

void WorkQueue::drop() {
  for (auto &[id, stream] : streams_) {
    stream.items.clear();
    stream.executed = stream.pushed;
  }
}

// A stack of its own: chains of waits may be as long as the work.
Status WorkQueue::runTo(Mark mark) {
  std::vector<Mark> goals = {mark};
  while (!goals.empty()) {
    if (reached(goals.back())) {
      goals.pop_back();
      continue;
    }
    Stream &stream = streams_.at(goals.back().stream);
    const Item &item = stream.items.front();
    if (!item.task && !reached(item.mark)) {
      goals.push_back(item.mark);
      continue;
    }
    const Task task = std::move(stream.items.front().task);
    stream.items.pop_front();
    ++stream.executed;
    if (!task)
      continue;
    if (Status status = task(); !status.isOk()) {
      drop();
      return status;
    }
  }
  return Status::ok();
}

Status WorkQueue::run(StreamId stream) { return runTo({stream, streams_.at(stream).pushed}); }
Status WorkQueue::runEvent(EventId event) { return runTo(events_.at(event)); }

Status WorkQueue::step(StreamId stream) {
  const Stream &one = streams_.at(stream);
  return one.items.empty() ? Status::ok() : runTo({stream, one.executed + 1});
}

Status WorkQueue::stepEvent(EventId event) {
  const Mark mark = events_.at(event);
  return reached(mark) ? Status::ok() : step(mark.stream);
}

StreamId WorkQueue::choose() {
  std::vector<StreamId> ready;
  for (const auto &[id, stream] : streams_)
    if (!stream.items.empty() && (stream.items.front().task || reached(stream.items.front().mark)))
      ready.push_back(id);
  if (random_ == 0)
    return ready.front();
  random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
  return ready[random_ % ready.size()];
}

Status WorkQueue::runAll() {
  const auto pending = [&] {
    for (const auto &[id, stream] : streams_)
      if (!stream.items.empty())
        return true;
    return false;
  };
  // Some stream can always go on: what a piece of work waits for was handed in before it.
  while (pending())
    KVQ_RETURN_IF_ERROR(step(choose()));
  return Status::ok();
}

} // namespace kvq::ptxsim
