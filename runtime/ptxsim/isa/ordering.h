// SPDX-License-Identifier: Apache-2.0
//
// What .volatile, .relaxed, .acquire, .release and scopes mean to the race checks.
#pragma once

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/memory/access.h"

namespace kvq::ptxsim {

struct Ordering {
  bool acquire = false, release = false;
  bool wide = true; // other blocks are in the scope; default of atom and of .volatile
};

// Form::tag of a strong operation holds its Ordering.
int orderingTag(const Form &form);
inline Ordering orderingOf(const Op &op) {
  const int tag = op.form ? op.form->tag : 4;
  return {(tag & 1) != 0, (tag & 2) != 0, (tag & 4) != 0};
}
// Sets the tags of strong operations; those that other blocks can see order blocks.
void markStrong(Table::Added added);

// After a strong access of the lanes at these addresses. An atomic both reads and writes.
void orderStrong(Warp &warp, Space space, uint32_t mask, const Addresses &addresses, Ordering ordering, bool reads,
                 bool writes);

// The intent of a strong access as the races between blocks see it: one of block scope is no protection against them.
inline Intent strongIntent(Intent intent, Space space, Ordering ordering) {
  if (space != Space::Shared && !ordering.wide)
    intent.kind = intent.writes ? AccessKind::Write : AccessKind::Read;
  return intent;
}

// membar and fence.
void fence(Warp &warp, bool wide);

void addFences(Table &);    // isa/fence.cpp
void addMbarriers(Table &); // isa/mbarrier.cpp

} // namespace kvq::ptxsim
