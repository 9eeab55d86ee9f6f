// SPDX-License-Identifier: Apache-2.0
//
// What the parsers of the runtime share: splitting, decimals, quoting. It knows no grammar.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvq::text {

// A decimal number without sign, of at most nine digits, without leading zero except "0" itself.
std::optional<int> parseDecimal(std::string_view text);
// The pieces between separators: one more than there are separators.
std::vector<std::string_view> split(std::string_view text, char separator);
// The decimal digits that the text begins with.
std::string_view leadingDigits(std::string_view text);
// Those of `names` that are the fewest typing mistakes away from `text`, if these are at most three.
std::vector<std::string_view> nearest(std::string_view text, const std::vector<std::string_view> &names);
// The text in single quotes for an error message, on one line and shortened: it may be anything the caller was given.
std::string quote(std::string_view text);

} // namespace kvq::text
