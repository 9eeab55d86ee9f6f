// SPDX-License-Identifier: Apache-2.0
//
// kvq_format_*: questions about a format's text.
#include "runtime/capi/handles.h"

using namespace kvq;
using namespace kvq::capi;

static Status checkCapacity(size_t capacity, const std::string &text) {
  if (text.size() < capacity)
    return Status::ok();
  return {Code::InvalidArgument, "capacity " + std::to_string(capacity) + " is too small: the text needs " +
                                     std::to_string(text.size() + 1) + " bytes"};
}

static void put(const std::string &text, char *out) { std::memcpy(out, text.c_str(), text.size() + 1); }

extern "C" {

kvq_error *kvq_format_canonical(const char *format, size_t capacity, char *text) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    KVQ_REQUIRE(text);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    const std::string canonical = toText(parsed.value());
    KVQ_RETURN_IF_ERROR(checkCapacity(capacity, canonical));
    put(canonical, text);
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

kvq_error *kvq_format_layouts(const char *format, const char *profile, int32_t page_tokens, int32_t dk, int32_t dv,
                              size_t capacity, char *k, char *v) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(format);
    KVQ_REQUIRE(profile);
    KVQ_REQUIRE(k);
    KVQ_REQUIRE(v);
    auto parsed = parseCache(format);
    if (!parsed.isOk())
      return parsed.status();
    auto named = parseProfile(profile);
    if (!named.isOk())
      return named.status();
    const PairFormat &pair = parsed.value().pair;
    KVQ_RETURN_IF_ERROR(checkProfile(named.value(), pair));
    const int tokens = page_tokens ? page_tokens : defaultPageTokens(pair);
    KVQ_RETURN_IF_ERROR(checkShape(pair, dk, dv, tokens));
    const auto text = [&](Side side, int bits, int headDim) {
      return makeSectionLayout(named.value(), side, bits, tokens, headDim).toText();
    };
    const std::string kText = text(Side::K, pair.k.bits, dk), vText = text(Side::V, pair.v.bits, dv);
    for (const std::string &needed : {kText, vText})
      KVQ_RETURN_IF_ERROR(checkCapacity(capacity, needed));
    put(kText, k);
    put(vText, v);
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
