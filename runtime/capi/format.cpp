// SPDX-License-Identifier: Apache-2.0
//
// kvq_format_*: questions about a format's text.
#include "runtime/capi/handles.h"

using namespace kvq;
using namespace kvq::capi;

extern "C" {

kvq_error *kvq_format_canonical(const char *format, size_t capacity, char *text) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    KVQ_REQUIRE(text);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    const std::string canonical = toText(parsed.value());
    if (canonical.size() + 1 > capacity)
      return {Code::InvalidArgument, "capacity " + std::to_string(capacity) + " is too small: the text needs " +
                                         std::to_string(canonical.size() + 1) + " bytes"};
    std::memcpy(text, canonical.c_str(), canonical.size() + 1);
    return Status::ok();
  });
}

kvq_error *kvq_format_page_tokens(const char *format, size_t capacity, int32_t *tokens, size_t *count) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    if (capacity > 0)
      KVQ_REQUIRE(tokens);
    KVQ_REQUIRE(count);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    const std::vector<int> legal = legalPageTokens(parsed.value().pair);
    for (size_t i = 0; i < std::min(capacity, legal.size()); ++i)
      tokens[i] = legal[i];
    *count = legal.size();
    return Status::ok();
  });
}

kvq_error *kvq_format_page_bytes(const char *format, int32_t page_tokens, int32_t dk, int32_t dv, int64_t *bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    KVQ_REQUIRE(bytes);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    const PairFormat &pair = parsed.value().pair;
    const int tokens = page_tokens ? page_tokens : defaultPageTokens(pair);
    KVQ_RETURN_IF_ERROR(checkShape(pair, dk, dv, tokens));
    *bytes = pageMap(pair, tokens, dk, dv).bytes;
    return Status::ok();
  });
}

kvq_error *kvq_format_frontier(const char *format, int64_t tokens, int64_t *k, int64_t *v) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    KVQ_REQUIRE(k);
    KVQ_REQUIRE(v);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    if (tokens < 0)
      return {Code::InvalidArgument, "tokens is " + std::to_string(tokens) + " but must be at least 0"};
    const Frontier state = frontier(parsed.value(), tokens);
    *k = state.k;
    *v = state.v;
    return Status::ok();
  });
}

} // extern "C"
