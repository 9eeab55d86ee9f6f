// SPDX-License-Identifier: Apache-2.0
//
// What a loop over lanes calls must be inside it to become vectors, and is larger than the compiler's own threshold.
#pragma once

#define KVQ_INLINE [[gnu::always_inline]] inline
#define KVQ_INLINE_LAMBDA __attribute__((always_inline)) // behind the parameters
