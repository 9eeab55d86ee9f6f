// SPDX-License-Identifier: Apache-2.0
//
// PTX text as tokens, and text that is written token by token while it is known which line each line came from.
#pragma once

#include "runtime/format/status.h"

#include <string>
#include <string_view>
#include <vector>

namespace kvq {

struct PtxToken {
  // Name: an identifier, with its % or $. Dotted: a directive or a modifier, with its dot. Number: as it is written.
  enum Kind { Name, Dotted, Number, String, Symbol, End };
  Kind kind = End;
  std::string_view text; // within the text that was split; a string with its quotes
  int line = 0;          // from 1
  bool spaced = false;   // whether white space or a comment stands before it

  bool is(std::string_view what) const { return text == what; }
};

// The tokens of a text, and one End after them. The text must outlive them. Comments are left out.
Result<std::vector<PtxToken>> splitPtx(std::string_view text);

// PTX text whose lines came from other lines.
struct PtxText {
  std::string text;
  std::vector<int> lines; // lines[i]: the line from which line i + 1 came
};

// Writes tokens in such a way that tokens of different lines stand on different lines.
class PtxWriter {
public:
  void write(const PtxToken &token) { write(token.text, token.line, token.spaced); }
  void write(std::string_view text, int line, bool spaced = true);
  void breakLine() { line_ = 0; } // what comes next begins a line
  // A line of its own.
  void writeLine(std::string_view text, int line);
  PtxText take();

private:
  PtxText out_;
  int line_ = 0; // from which the line that is being written came; 0: none is
};

// A sentence about a line of PTX. `text` is the PTX, from which the line is quoted.
Status ptxError(std::string_view text, int line, const std::string &what);
std::string_view lineOf(std::string_view text, int line);

} // namespace kvq
