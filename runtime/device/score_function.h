// SPDX-License-Identifier: Apache-2.0
//
// A user's score function as plain data: what it is stands at kvq_score_function in kvq.h.
#pragma once

#include <string>

namespace kvq {

enum class ScoreLanguage { Ir, Cuda };

struct ScoreFunction {
  ScoreLanguage language = ScoreLanguage::Ir;
  std::string text;
  std::string name; // for messages
};

} // namespace kvq
