/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract between generated kernels and whoever calls them. Depends on nothing. Both halves of the project
 * include it: the compiler emits code that follows it, the runtime calls by it. Treat it as a schema: a change to any
 * number here is a new KVQ_KERNEL_ABI_VERSION, which is part of every kernel's key.
 *
 * A kernel is one function of C linkage:
 *
 *     int32_t name(const uint64_t *args, const int64_t *program_id);
 *
 * args[i] is the i-th argument in 64 bits: a pointer; an i64 or (sign-extended) i32; or the bits of an f32 in the low
 * half. program_id has three entries. The function works off that one program and returns 0. It allocates nothing,
 * throws nothing, calls nothing (an emitted object has no undefined symbol), keeps no state and may be called by many
 * threads at once for different programs. Pointers are to the host's memory, aligned to their element; page pools to
 * 64 bytes. Strides are in elements unless named bytes. Rows of K, V, q and out are contiguous in the channel.
 *
 * Positions are body indices (format-spec commit_c7): negative for a token that is kept in full precision for ever.
 * A tail is [slot][KV head][rows][D] with rows = cap + keep: body token p >= 0 is in row p mod cap, kept token p < 0 in
 * row rows + p.
 *
 * The page of block n and KV head h begins at PAGES + n * BLOCK_STRIDE + h * HEAD_STRIDE (format-spec page_c4),
 * whatever the two strides are, as long as no two pages overlap and each begins at a multiple of 64 bytes.
 *
 * On an accelerator a kernel is PTX with one entry, kvq_entry, whose parameters are words of 64 bits (.u64): one for
 * each argument, as above but with pointers to the device's memory, and then the number of programs along dimension 0
 * of the grid. Blocks are of as many threads as .reqntid says: (32 * n, w, 1) for n programs of w warps each. Warps
 * with the same tid.x / 32 are one program: program_id[0] is ctaid.x * n + tid.x / 32, program_id[1] and [2] are
 * ctaid.y and ctaid.z, and warps past the number of programs return at once. A launch has ceil(programs / n) blocks.
 * Arguments are different memory wherever a kernel writes through one of them. The kernel uses no dynamic shared
 * memory. Page pools and pages begin at multiples of 64 bytes, tails too, item arrays at 8, everything else at its
 * element.
 *
 * The argument lists of the built-in kernels follow. A table entry of 32 bits is an int32_t.
 */
#ifndef KVQ_KERNEL_ABI_H
#define KVQ_KERNEL_ABI_H

#include <stdint.h>

#define KVQ_KERNEL_ABI_VERSION 5

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t (*kvq_kernel_fn)(const uint64_t *args, const int64_t *program_id);

/* append: one program copies K and V of one new token, all KV heads, into the tail ring and counts bad values
 * (format-spec quantize_c1) of that token. */
enum kvq_append_arg {
  KVQ_APPEND_ITEMS = 0, /* const kvq_append_item *, indexed by program_id[0] */
  KVQ_APPEND_K = 1,     /* source of K */
  KVQ_APPEND_K_HEAD_STRIDE = 2,
  KVQ_APPEND_V = 3,
  KVQ_APPEND_V_HEAD_STRIDE = 4,
  KVQ_APPEND_TAIL_K = 5, /* this layer's K tail, all slots */
  KVQ_APPEND_TAIL_V = 6,
  KVQ_APPEND_TAIL_CAP = 7,  /* tokens of one ring */
  KVQ_APPEND_TAIL_ROWS = 8, /* rows of one head of a tail slot: cap + keep */
  KVQ_APPEND_HEADS = 9,     /* Hkv */
  KVQ_APPEND_STATUS = 10,   /* int32_t[program]: number of bad values, always written */
  KVQ_APPEND_ARGS = 11
};
typedef struct kvq_append_item {
  int64_t k_offset; /* elements from KVQ_APPEND_K to the token's head 0 */
  int64_t v_offset;
  int32_t tail_slot;
  int32_t position; /* body index; negative: a kept token */
} kvq_append_item;  /* 24 bytes */

/* quantize_k, quantize_v: one program quantizes tokens [position, position + count) of one KV head from the tail into
 * one page. Per channel: position and count are multiples of the group. Per token: any. Codes of other tokens in the
 * page stay as they are. */
enum kvq_quantize_arg {
  KVQ_QUANTIZE_ITEMS = 0,        /* const kvq_quantize_item * */
  KVQ_QUANTIZE_PAGES = 1,        /* this layer's page pool */
  KVQ_QUANTIZE_BLOCK_STRIDE = 2, /* bytes */
  KVQ_QUANTIZE_HEAD_STRIDE = 3,  /* bytes */
  KVQ_QUANTIZE_TAIL = 4,         /* this layer's K or V tail */
  KVQ_QUANTIZE_TAIL_CAP = 5,
  KVQ_QUANTIZE_TAIL_ROWS = 6,
  KVQ_QUANTIZE_HEADS = 7, /* Hkv */
  KVQ_QUANTIZE_ARGS = 8
};
typedef struct kvq_quantize_item {
  int32_t block; /* block number in the pool */
  int32_t kv_head;
  int32_t tail_slot;
  int32_t position; /* body index of the first token, >= 0; its row in the page is position mod P */
  int32_t count;    /* tokens, all in this page */
  int32_t reserved;
} kvq_quantize_item; /* 24 bytes */

/* attend: one program computes up to `rows` query rows of one KV head over one range of keys. Row r of a sequence is
 * (query r / G_q, head kv_head * G_q + r % G_q). Results are partial: normalised o and its lse. A row at body position
 * t sees body keys j <= t, under `win1` also j > t - window; the score cap takes part under `cap1` only. */
enum kvq_attend_arg {
  KVQ_ATTEND_ITEMS = 0, /* const kvq_attend_item * */
  KVQ_ATTEND_Q = 1,
  KVQ_ATTEND_Q_OFFSETS = 2, /* const int64_t[queries]: elements from Q to the query's head 0 */
  KVQ_ATTEND_Q_HEAD_STRIDE = 3,
  KVQ_ATTEND_PAGES = 4,        /* this layer's page pool */
  KVQ_ATTEND_BLOCK_STRIDE = 5, /* bytes */
  KVQ_ATTEND_HEAD_STRIDE = 6,  /* bytes */
  KVQ_ATTEND_BLOCK_TABLE = 7,  /* const int32_t * */
  KVQ_ATTEND_TAIL_K = 8,
  KVQ_ATTEND_TAIL_V = 9,
  KVQ_ATTEND_TAIL_CAP = 10,
  KVQ_ATTEND_TAIL_ROWS = 11,
  KVQ_ATTEND_KV_HEADS = 12,    /* Hkv */
  KVQ_ATTEND_K_FRONTIER = 13,  /* const int32_t[queries]: fK of the query's position, body tokens */
  KVQ_ATTEND_V_FRONTIER = 14,  /* const int32_t[queries]: fV of the query's position */
  KVQ_ATTEND_POSITIONS = 15,   /* const int32_t[queries]: body index of the query */
  KVQ_ATTEND_SCALE = 16,       /* f32, natural units */
  KVQ_ATTEND_WINDOW = 17,      /* i64, at least 1: keys a query sees, itself included (`win1`; ignored otherwise) */
  KVQ_ATTEND_SCORE_CAP = 18,   /* f32 > 0: format-spec attention_c11 (`cap1`; ignored otherwise) */
  KVQ_ATTEND_PARTIAL_O = 19,   /* float[splits][queries][Hq][Dv] */
  KVQ_ATTEND_PARTIAL_LSE = 20, /* float[splits][queries][Hq], natural logarithm, -inf where no key was seen */
  KVQ_ATTEND_QUERIES = 21,     /* number of queries in the plan */
  KVQ_ATTEND_ARGS = 22         /* captures of a score region follow */
};
typedef struct kvq_attend_item {
  int32_t kv_head;
  int32_t query_base;   /* index of the sequence's first query in the plan */
  int32_t row_begin;    /* first row of this program, in the sequence */
  int32_t row_count;    /* 1 .. rows */
  int32_t packed_begin; /* tokens with packed K to visit: [packed_begin, packed_end); packed_begin a multiple of P */
  int32_t packed_end;
  int32_t raw_begin; /* tokens with K in the tail to visit: [raw_begin, raw_end) */
  int32_t raw_end;
  int32_t v_raw_begin; /* below it no row of this program needs V from the tail */
  int32_t table_base;  /* index of page 0's entry in the block table; negative where only later pages have one */
  int32_t tail_slot;
  int32_t split;      /* which partial this program writes */
  int32_t kept;       /* kept tokens to visit: all body indices -kept .. -1; 0: none */
  int32_t next_entry; /* where the program that the same thread is likely to run next begins: an index into the block */
  int32_t next_head; /* table and a KV head, of a page that exists; it is brought in while the last tile is worked on */
  int32_t reserved;  /* 0 */
} kvq_attend_item;   /* 64 bytes; masks come from the frontier and position tables, so ranges may be generous */

/* merge: one program combines the partial results of one query, program_id[0], for some of its heads: those from
 * program_id[1] * PROGRAM_HEADS on. */
enum kvq_merge_arg {
  KVQ_MERGE_PARTIAL_O = 0,
  KVQ_MERGE_PARTIAL_LSE = 1,
  KVQ_MERGE_QUERIES = 2,
  KVQ_MERGE_HEADS = 3,  /* Hq */
  KVQ_MERGE_SPLITS = 4, /* const int32_t[queries]: partials of the query, from split 0 */
  KVQ_MERGE_OUT = 5,
  KVQ_MERGE_OUT_OFFSETS = 6, /* const int64_t[queries] */
  KVQ_MERGE_OUT_HEAD_STRIDE = 7,
  KVQ_MERGE_LSE = 8,            /* float[queries][Hq] */
  KVQ_MERGE_SINKS = 9,          /* const float[Hq]: sink logits (format-spec attention_c12); -inf: none */
  KVQ_MERGE_PROGRAM_HEADS = 10, /* at least 1 */
  KVQ_MERGE_ARGS = 11
};

/* dequantize_k, dequantize_v: one program writes tokens [first, first + count) of one page and KV head as rows. */
enum kvq_dequantize_arg {
  KVQ_DEQUANTIZE_ITEMS = 0, /* const kvq_dequantize_item * */
  KVQ_DEQUANTIZE_PAGES = 1,
  KVQ_DEQUANTIZE_BLOCK_STRIDE = 2, /* bytes */
  KVQ_DEQUANTIZE_HEAD_STRIDE = 3,  /* bytes */
  KVQ_DEQUANTIZE_OUT = 4,
  KVQ_DEQUANTIZE_OUT_TOKEN_STRIDE = 5,
  KVQ_DEQUANTIZE_ARGS = 6
};
typedef struct kvq_dequantize_item {
  int64_t out_offset; /* elements from OUT to the row of token `first` */
  int32_t block;
  int32_t kv_head;
  int32_t first; /* row in the page */
  int32_t count;
} kvq_dequantize_item; /* 24 bytes */

/* convert_k, convert_v: one program moves K or V of one page and KV head, the codes of all tokens (also of those that
 * were never quantized), scales and minima, from a page of one layout profile to where the other has them, bit for bit
 * (format-spec layout_c9). Both pages have the sections of the request's format, K's and V's; only those of the side
 * are read and written. Source and destination belong to the caller, may be of different pools with strides of their
 * own, and do not overlap; the source is not changed. */
enum kvq_convert_arg {
  KVQ_CONVERT_ITEMS = 0,               /* const kvq_convert_item * */
  KVQ_CONVERT_SOURCE = 1,              /* pool of pages as they were */
  KVQ_CONVERT_SOURCE_BLOCK_STRIDE = 2, /* bytes */
  KVQ_CONVERT_SOURCE_HEAD_STRIDE = 3,  /* bytes */
  KVQ_CONVERT_PAGES = 4,               /* pool of what they become */
  KVQ_CONVERT_BLOCK_STRIDE = 5,        /* bytes */
  KVQ_CONVERT_HEAD_STRIDE = 6,         /* bytes */
  KVQ_CONVERT_ARGS = 7
};
typedef struct kvq_convert_item {
  int32_t source_block; /* block number in the source's pool */
  int32_t block;        /* and in the other */
  int32_t kv_head;      /* in both */
  int32_t reserved;
} kvq_convert_item; /* 16 bytes */

#ifdef __cplusplus
} /* extern "C" */
static_assert(sizeof(kvq_append_item) == 24, "schema");
static_assert(sizeof(kvq_quantize_item) == 24, "schema");
static_assert(sizeof(kvq_attend_item) == 64, "schema");
static_assert(sizeof(kvq_dequantize_item) == 24, "schema");
static_assert(sizeof(kvq_convert_item) == 16, "schema");
#endif

#endif /* KVQ_KERNEL_ABI_H */
