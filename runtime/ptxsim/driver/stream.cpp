// SPDX-License-Identifier: Apache-2.0
//
// Streams and events.
#include "runtime/ptxsim/driver/state.h"

using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!stream || flags > CU_STREAM_NON_BLOCKING)
      return CUDA_ERROR_INVALID_VALUE;
    auto made = std::make_unique<CUstream_st>();
    made->context = context;
    made->id = context->gpu.queue().createStream(flags != CU_STREAM_NON_BLOCKING);
    *stream = made.get();
    context->streams.emplace(*stream, std::move(made));
    return CUDA_SUCCESS;
  });
}
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
  return cuStreamCreate(stream, flags);
}

// A call about a stream.
template <typename Function> static CUresult onStream(CUstream stream, const Function &function) {
  return inContext([&](CUcontext context) -> CUresult {
    StreamId id = 0;
    return findStream(context, stream, id) ? function(context, id) : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return onStream(stream, [&](CUcontext context, StreamId id) -> CUresult {
    if (!context->streams.count(stream))
      return CUDA_ERROR_INVALID_HANDLE;
    (void)context->gpu.synchronize(id); // a failure shows at the next call
    context->gpu.queue().destroyStream(id);
    context->streams.erase(stream);
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamSynchronize(CUstream stream) {
  return onStream(stream, [](CUcontext context, StreamId id) { return result(context, context->gpu.synchronize(id)); });
}

// A poll finds one more piece of work done than the one before.
static CUresult poll(CUcontext context, StreamId id) {
  if (CUresult error = result(context, context->gpu.poll(id)))
    return error;
  return context->gpu.queue().done(id) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamQuery(CUstream stream) { return onStream(stream, poll); }

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  return onStream(stream, [&](CUcontext context, StreamId id) -> CUresult {
    if (flags > 1)
      return CUDA_ERROR_INVALID_VALUE;
    if (!findEvent(context, event))
      return CUDA_ERROR_INVALID_HANDLE;
    context->gpu.queue().wait(id, event->id);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!event || flags > (CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING))
      return CUDA_ERROR_INVALID_VALUE;
    auto made = std::make_unique<CUevent_st>();
    made->context = context;
    made->id = context->gpu.queue().createEvent();
    made->flags = flags;
    *event = made.get();
    context->events.emplace(*event, std::move(made));
    return CUDA_SUCCESS;
  });
}

// A call about an event.
template <typename Function> static CUresult onEvent(CUevent event, const Function &function) {
  return inContext([&](CUcontext context) -> CUresult {
    return findEvent(context, event) ? function(context) : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return onEvent(event, [&](CUcontext context) -> CUresult {
    context->gpu.queue().destroyEvent(event->id);
    context->events.erase(event);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return onEvent(event, [&](CUcontext context) -> CUresult {
    StreamId id = 0;
    if (!findStream(context, stream, id))
      return CUDA_ERROR_INVALID_HANDLE;
    context->gpu.queue().record(event->id, id);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return onEvent(event, [&](CUcontext context) { return result(context, context->gpu.synchronizeEvent(event->id)); });
}

CUresult cuEventQuery(CUevent event) {
  return onEvent(event, [&](CUcontext context) -> CUresult {
    if (CUresult error = result(context, context->gpu.pollEvent(event->id)))
      return error;
    return context->gpu.queue().eventDone(event->id) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

// Simulated kernels take no time that would mean anything.
CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!milliseconds)
      return CUDA_ERROR_INVALID_VALUE;
    if (!findEvent(context, begin) || !findEvent(context, end) || (begin->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
      return CUDA_ERROR_INVALID_HANDLE;
    return CUDA_ERROR_NOT_SUPPORTED;
  });
}
CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent begin, CUevent end) {
  return cuEventElapsedTime(milliseconds, begin, end);
}
