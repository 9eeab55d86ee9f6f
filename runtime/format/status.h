// SPDX-License-Identifier: Apache-2.0
//
// Status: how the runtime reports that something cannot be done. Nothing in the runtime throws or aborts on a caller's
// mistake. Rule for the code: what should the caller do next? Rule for the text: one sentence that says what, which
// value, what to do.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace kvq {

enum class Code {
  Ok = 0,
  InvalidArgument = 1,    // the call is wrong as it stands: change the argument
  Unsupported = 2,        // a legal wish that this build or machine cannot fulfil
  ResourceExhausted = 3,  // a pool is full: free or grow, then retry
  FailedPrecondition = 4, // the object is in another state: call something else first
  BadValue = 5,           // NaN, infinity or out of range in the caller's data
  Corrupt = 6,            // stored data failed its checksum or version
  Permission = 7,         // a file or folder cannot or must not be used
  Internal = 8            // our mistake
};

class [[nodiscard]] Status {
public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status ok() { return {}; }
  bool isOk() const { return code_ == Code::Ok; }
  Code code() const { return code_; }
  const std::string &message() const { return message_; }

private:
  Code code_ = Code::Ok;
  std::string message_;
};

// A value or the reason why there is none.
template <typename T> class [[nodiscard]] Result {
public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}
  bool isOk() const { return value_.has_value(); }
  const Status &status() const { return status_; }
  T &value() { return *value_; }
  const T &value() const { return *value_; }

private:
  std::optional<T> value_;
  Status status_;
};

} // namespace kvq

#define KVQ_RETURN_IF_ERROR(expr)                                                                                      \
  do {                                                                                                                 \
    if (::kvq::Status kvq_status_ = (expr); !kvq_status_.isOk())                                                       \
      return kvq_status_;                                                                                              \
  } while (0)
