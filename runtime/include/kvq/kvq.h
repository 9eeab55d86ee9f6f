/* SPDX-License-Identifier: Apache-2.0
 *
 * kvq: quantized KV caches for language-model inference. The C API that an engine embeds.
 *
 * Way of use: a context (device, threads, kernel store), a cache in memory that the caller owns, sequences in it. Each
 * model step is one plan: kvq_plan, per layer kvq_append and kvq_attend (or kvq_forward, which does both and takes any
 * number of new tokens), then kvq_commit_step. See examples/embed_c for a whole program.
 *
 * Stability: functions, structs and enumerators here may be added to, never changed. A struct that the caller fills
 * begins with struct_size = sizeof(the struct); new fields go to its end and zero is always their default.
 * Errors: a function returns NULL, or an error that the caller owns (kvq_error_free). Its message is one sentence that
 * says what is wrong, with which value, and what to do. After an error the cache is as it was.
 * Ownership: *_create, kvq_plan and kvq_kernel_compile give an object to the caller, *_destroy takes it back; a cache
 * must be destroyed before its context, plans before their cache. Out-parameters come last and are written only on
 * success. Tensors are borrowed for the duration of the call.
 * Threads: calls on different handles may run at once. Calls on one handle, and on a cache and its plan, must not.
 * No global state; nothing aborts on bad input.
 */
#ifndef KVQ_H
#define KVQ_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KVQ_API __attribute__((visibility("default")))
#else
#define KVQ_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors (since 0.1) ------------------------------------------------------------------------------------------ */
typedef enum kvq_code {
  KVQ_OK = 0,
  KVQ_INVALID_ARGUMENT = 1,    /* change the argument */
  KVQ_UNSUPPORTED = 2,         /* a legal wish that this build or machine cannot fulfil */
  KVQ_RESOURCE_EXHAUSTED = 3,  /* a pool is full: free sequences or kvq_cache_grow, then retry */
  KVQ_FAILED_PRECONDITION = 4, /* the object is in another state: call something else first */
  KVQ_BAD_VALUE = 5,           /* NaN, infinity or a value beyond f16 in K or V */
  KVQ_CORRUPT = 6,             /* stored data failed its checksum or version */
  KVQ_PERMISSION = 7,          /* a file or folder cannot or must not be used */
  KVQ_INTERNAL = 8             /* our mistake: please report it */
} kvq_code;
typedef struct kvq_error kvq_error;
KVQ_API kvq_code kvq_error_code(const kvq_error *error);       /* KVQ_OK for NULL */
KVQ_API const char *kvq_error_message(const kvq_error *error); /* "" for NULL; valid until freed */
KVQ_API void kvq_error_free(kvq_error *error);                 /* NULL is fine */

KVQ_API const char *kvq_version(void); /* "0.2.0" */

/* ---- tensors (since 0.1) ----------------------------------------------------------------------------------------- */
typedef enum kvq_dtype { KVQ_F32 = 0, KVQ_BF16 = 1, KVQ_F16 = 2 /* since 0.2 */ } kvq_dtype;
typedef enum kvq_device {
  KVQ_CPU = 0,
  KVQ_CUDA = 1
} kvq_device; /* where data lives: the host's memory, or that of a GPU, real or simulated, at an address of
                 kvq_buffer_address or inside of one. kvq_context_memory says where tensors of a context's calls must
                 lie; others are refused in one sentence, and never copied in silence */
/* A strided view, up to four dimensions, strides in elements. */
typedef struct kvq_tensor {
  void *data;
  kvq_dtype dtype;
  kvq_device device;
  int32_t ndim;
  int64_t shape[4];
  int64_t strides[4];
} kvq_tensor;

/* ---- formats (since 0.1): docs/format-spec.md sections 1, 4, 5 ------------------------------------------------------
 */
/* Canonical text of a cache text or preset, NUL-terminated, into `text` of `capacity` bytes (64 is enough). */
KVQ_API kvq_error *kvq_format_canonical(const char *format, size_t capacity, char *text);
/* The legal page sizes in tokens, ascending: up to `capacity` into `tokens`, their number into `count`. */
KVQ_API kvq_error *kvq_format_page_tokens(const char *format, size_t capacity, int32_t *tokens, size_t *count);
/* Bytes of one page of one KV head (page_c2). page_tokens 0: the default. */
KVQ_API kvq_error *kvq_format_page_bytes(const char *format, int32_t page_tokens, int32_t dk, int32_t dv,
                                         int64_t *bytes);
/* Where each code of a page lies (layout_c4): the texts of its sections of K and V codes, NUL-terminated, into `k` and
 * `v` of `capacity` bytes each (256 is enough). profile: "vnni", as caches in the host's memory have it, "mma", as
 * those in an accelerator's, or "kivi" (format-spec section 3). page_tokens 0: the default. Since 0.2. */
KVQ_API kvq_error *kvq_format_layouts(const char *format, const char *profile, int32_t page_tokens, int32_t dk,
                                      int32_t dv, size_t capacity, char *k, char *v);
/* Tokens whose K, V are quantized when a sequence has `tokens` tokens (commit_c2, commit_c3, commit_c8), not counting
 * those that are kept in full precision (commit_c7). */
KVQ_API kvq_error *kvq_format_frontier(const char *format, int64_t tokens, int64_t *k, int64_t *v);

/* ---- accuracy classes (since 0.2) --------------------------------------------------------------------------------
 * How far the arithmetic of attention may be from the exact answer over what is stored (attention_c4): a budget, not a
 * method. Codes, pages and snapshots are the same in every class. */
typedef enum kvq_accuracy {
  KVQ_ACCURACY_DEFAULT = 0, /* what kvq_accuracy_name says of it */
  KVQ_ACCURACY_FULL = 1,    /* f32 throughout: for comparing token by token; the slowest */
  KVQ_ACCURACY_EXACT = 2,   /* 16-bit coefficients: a relative error of about 1e-4 */
  KVQ_ACCURACY_NORMAL = 3,  /* a tenth of the error that quantizing itself makes */
  KVQ_ACCURACY_FAST = 4     /* the fastest arithmetic that there is; one dominant token may cost more than in others */
} kvq_accuracy;
/* Space-separated names of the classes, the most accurate first: "full exact normal fast". The name at index i is that
 * of the enumerator i + 1. */
KVQ_API const char *kvq_accuracy_classes(void);
/* Name of a class; of KVQ_ACCURACY_DEFAULT the name of the class that it stands for. NULL: there is no such class. */
KVQ_API const char *kvq_accuracy_name(kvq_accuracy accuracy);

/* ---- context (since 0.1) ----------------------------------------------------------------------------------------- */
typedef struct kvq_context kvq_context;
typedef void (*kvq_task)(void *task_data, int64_t index);
/* Runs task(task_data, i) for i in [0, count), in any order and on any threads, and returns when all are done. */
typedef void (*kvq_parallel_for)(void *user_data, int64_t count, kvq_task task, void *task_data);
typedef struct kvq_context_options {
  size_t struct_size;
  const char *device;    /* "cpu" (NULL too): generated kernels. "ref": the scalar reference, for debugging, slow.
                            "cuda" (since 0.2): an NVIDIA GPU, $KVQ_CUDA_DEVICE of several. "ptxsim" (since 0.2): a
                            simulated one that checks every access, for development */
  const char *level;     /* level to compile for; NULL: the best that the host has. kvq_context_levels lists them. Of a
                            GPU "nvptx:sm_80" or "sm_80", with "+magic" behind it for kernels without subnormal halves,
                            which it takes by itself where the GPU flushes them; on "ptxsim" it says which GPU is
                            simulated */
  int32_t threads;       /* of the context's own pool, the caller's thread included; 0: all that the process may use */
  const char *store_dir; /* folder of compiled kernels; NULL: $KVQ_STORE or the user's cache folder; "": none */
  const char *compiler;  /* path of the compiler plug-in; NULL: $KVQ_COMPILER or next to this library; "": none */
  int32_t frozen;        /* 1: never compile; a kernel that is not in the store is an error */
  kvq_parallel_for parallel_for; /* NULL: the context's own pool */
  void *parallel_for_data;
} kvq_context_options;
KVQ_API kvq_error *kvq_context_create(const kvq_context_options *options, kvq_context **context);
KVQ_API void kvq_context_destroy(kvq_context *context);
/* Space-separated names of the levels that this host, or the context's GPU, can run, best last; owned by the context.
 */
KVQ_API const char *kvq_context_levels(const kvq_context *context);
KVQ_API const char *kvq_context_level(const kvq_context *context); /* the one in use; "ref" on that device */
/* One line for people: of a GPU its name, compute capability, memory and driver, and what makes kernels slower there;
 * of a host its level. Owned by the context. Since 0.2. */
KVQ_API const char *kvq_context_description(const kvq_context *context);
/* What times depend on, as JSON with its keys in order and no spaces: the same machine has the same text. Of a host
 *   {"caches":{"L1":32768,"L2":1048576},"cores":8,"kind":"cpu","name":"...","target":"x86-64-v4"}
 * with bytes of the caches (L1: for data), all processors that are there, and the level as target; of a GPU
 *   {"kind":"accelerator","name":"...","target":"nvptx:sm_90"}
 * Owned by the context. Since 0.2. */
KVQ_API const char *kvq_context_machine(const kvq_context *context);
/* Where kernels of the context see memory: KVQ_CPU, or KVQ_CUDA for a device with memory of its own. There all tensors,
 * and the memory and workspace of caches, are device addresses in place of pointers. Since 0.2. */
KVQ_API kvq_device kvq_context_memory(const kvq_context *context);
/* One call per kernel that the context holds. source: "compiled", "store" or "ref". */
typedef struct kvq_kernel_info {
  const char *name; /* canonical request text, and its score function by name if it has one; or a user kernel's name */
  const char *source;
  const char *key;   /* hexadecimal */
  double compile_ms; /* what compiling it took, also when it now came from the store */
  int64_t object_bytes;
  const char *schedule; /* since 0.2: that it was compiled with; "": the default one, or no built-in kernel */
} kvq_kernel_info;
typedef void (*kvq_kernel_visitor)(void *user_data, const kvq_kernel_info *info);
KVQ_API void kvq_context_kernels(kvq_context *context, kvq_kernel_visitor visitor, void *user_data);

/* ---- score functions (since 0.2) ---------------------------------------------------------------------------------
 * A change of attention's scores that is compiled into the kernel: what it gives for the scaled, and capped, score of a
 * query and a key takes the score's place before the softmax (score in natural units; -infinity hides the key). It has
 * no side effects, and is called for keys that the query does not see as well, whose scores may be anything.
 *   KVQ_SCORE_IR: an IR module with one function, on every device with generated kernels:
 *     func.func @alibi(%score: f32, %batch: index, %head: index, %query: index, %key: index) -> f32 { ... }
 *     of elementwise ops of arith and math (the score region of docs/generated/dialect.md, kvq.attention).
 *   KVQ_SCORE_CUDA: CUDA C++, on devices "cuda" and "ptxsim", compiled by NVRTC:
 *     extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k)
 *     What it calls it must define; stdint.h and math.h may be included.
 * batch is the number of the sequence in the cache, head that of the query head; query and key are positions, counted
 * from the first token that is not kept in full precision (format-spec commit_c7; kept ones are negative). */
typedef enum kvq_score_language { KVQ_SCORE_IR = 0, KVQ_SCORE_CUDA = 1 } kvq_score_language;
typedef struct kvq_score_function {
  size_t struct_size;
  kvq_score_language language;
  const char *text;
  const char *name; /* what messages call it; NULL: "score" */
} kvq_score_function;

/* ---- cache (since 0.1) ------------------------------------------------------------------------------------------- */
typedef struct kvq_cache kvq_cache;
typedef struct kvq_cache_config {
  size_t struct_size;
  const char *format; /* cache text or preset */
  int32_t layers, q_heads, kv_heads, dk, dv;
  kvq_dtype dtype;     /* of K, V, q and out; the window is kept in it */
  int32_t page_tokens; /* 0: the default */
  int64_t blocks;      /* capacity of the page pool: blocks of page_tokens tokens, shared by all sequences */
  int32_t sequences;   /* capacity in sequences: one tail slot each */
  /* since 0.2: of the model's attention in these layers. Layers that differ in anything here are caches of their own.
   */
  int32_t attention_window; /* keys that a query sees, itself included (window_c1); 0: all before it. Pages behind it
                               are dropped (window_c2) */
  float score_cap;          /* c of c * tanh(score / c) (attention_c11); 0: none */
  kvq_accuracy accuracy;    /* accuracy class of attention; 0: the default one. kvq_report says which it is */
  const kvq_score_function *score; /* of attention; NULL: none. Copied. kvq_cache_create compiles it, and refuses what
                                      is wrong with it: KVQ_INVALID_ARGUMENT with line and column, KVQ_UNSUPPORTED for
                                      a language that the device does not have */
  const char *split_policy;        /* since 0.2: how attention splits the keys of a sequence over programs, as in "split
                                      policies" below; NULL: as was chosen for such caches (kvq_split_policy_set), or
                                      the default one. Fixed when the cache is made; snapshots do not depend on it */
} kvq_cache_config;
/* KVQ_OK with NULL reason, or KVQ_UNSUPPORTED / KVQ_INVALID_ARGUMENT: what would run and why not. Never compiles. */
KVQ_API kvq_error *kvq_query_support(kvq_context *context, const kvq_cache_config *config);
/* Memory that a cache needs, 64-byte aligned, where the context's kernels see it (kvq_context_memory). A cache on a
 * device with memory of its own takes some more there for its work lists: KVQ_RESOURCE_EXHAUSTED where there is none.
 */
KVQ_API kvq_error *kvq_cache_memory_bytes(const kvq_cache_config *config, size_t *bytes);
/* `memory` stays the caller's and must outlive the cache (or the next kvq_cache_grow). Contents need not be cleared. */
KVQ_API kvq_error *kvq_cache_create(kvq_context *context, const kvq_cache_config *config, void *memory, size_t bytes,
                                    kvq_cache **cache);
KVQ_API void kvq_cache_destroy(kvq_cache *cache);
/* Moves the cache into larger memory with more blocks and sequences; on success the old memory is free again. Not
 * while a plan is open. */
KVQ_API kvq_error *kvq_cache_grow(kvq_cache *cache, int64_t blocks, int32_t sequences, void *memory, size_t bytes);
/* Compiles or loads all kernels that the cache can need, in parallel; progress (may be NULL) is called per kernel. */
KVQ_API kvq_error *kvq_cache_prepare(kvq_cache *cache, kvq_kernel_visitor progress, void *user_data);

/* The same for machines that need not be here: compiles all that a cache of `config` can need on each of the targets
 * into the context's kernel store, where contexts on such machines look for it, frozen ones too. targets: names
 * separated by spaces or commas: CPU levels ("x86-64-v4") and GPUs ("nvptx:sm_90"); an unknown one is refused with all
 * that there are. Of GPUs the store gets PTX and, where NVRTC is installed, machine code for that very architecture;
 * without it the driver there compiles the PTX. Nothing is run; names that progress is told end in "for TARGET". Not
 * on device "ref", which has no kernels. Since 0.2. */
KVQ_API kvq_error *kvq_prepare_targets(kvq_context *context, const kvq_cache_config *config, const char *targets,
                                       kvq_kernel_visitor progress, void *user_data);

KVQ_API kvq_error *kvq_sequence_add(kvq_cache *cache, int32_t *sequence);
KVQ_API kvq_error *kvq_sequence_remove(kvq_cache *cache,
                                       int32_t sequence); /* its blocks and tail slot are free again */
KVQ_API kvq_error *kvq_sequence_length(const kvq_cache *cache, int32_t sequence, int64_t *tokens);

/* since 0.2: format-spec section 8. None of these may touch a sequence that takes part in an open step. */
typedef struct kvq_sequence_state {
  size_t struct_size;
  int64_t tokens;                 /* its length */
  int64_t k_frontier, v_frontier; /* tokens that are quantized, those kept in full precision not counted */
  int64_t first_block, blocks;    /* it owns the blocks of pages first_block .. first_block + blocks - 1 (window_c2) */
  int64_t least_tokens; /* the fewest that kvq_sequence_crop can take it back to, but for an empty one (crop_c4) */
} kvq_sequence_state;
KVQ_API kvq_error *kvq_sequence_get_state(const kvq_cache *cache, int32_t sequence, kvq_sequence_state *state);
/* A new sequence in the same state. Blocks are shared until one of the two writes to one (fork_c1); the tail is copied.
 * KVQ_RESOURCE_EXHAUSTED when all tail slots are in use. */
KVQ_API kvq_error *kvq_sequence_fork(kvq_cache *cache, int32_t sequence, int32_t *fork);
/* Takes the sequence back to its first `tokens` tokens. Up to 32 come off without loss (crop_c3); a cut in what is left
 * only as codes dequantizes the cut group into the tail: `thawed` (may be NULL) says how many tokens.
 * KVQ_FAILED_PRECONDITION where pages behind the attention window would be needed (crop_c4). */
KVQ_API kvq_error *kvq_sequence_crop(kvq_cache *cache, int32_t sequence, int64_t tokens, int64_t *thawed);
/* A sequence as bytes, for files and swapping (snapshot_c1, snapshot_c2), and back. KVQ_CORRUPT: damaged, or of another
 * version; KVQ_INVALID_ARGUMENT: of another cache; KVQ_RESOURCE_EXHAUSTED: no slot or too few blocks. Pages of a device
 * that lays them out otherwise are converted (snapshot_c3), in memory for one layer of them that is taken for as long,
 * by two kernels that are compiled then: a frozen context refuses what its store has not. */
KVQ_API kvq_error *kvq_sequence_snapshot_bytes(const kvq_cache *cache, int32_t sequence, size_t *bytes);
KVQ_API kvq_error *kvq_sequence_snapshot(const kvq_cache *cache, int32_t sequence, void *data, size_t bytes);
KVQ_API kvq_error *kvq_sequence_restore(kvq_cache *cache, const void *data, size_t bytes, int32_t *sequence);
/* Sink logits of a layer, one per query head (attention_c12), copied; -infinity: none, as at first. Not while a step is
 * open. */
KVQ_API kvq_error *kvq_cache_set_sinks(kvq_cache *cache, int32_t layer, const float *logits, int32_t count);

typedef struct kvq_cache_report {
  size_t struct_size;
  int64_t tokens; /* over all sequences */
  int64_t sequences;
  int64_t blocks_used, blocks_capacity;
  int64_t page_bytes_used; /* blocks in use, all layers and heads */
  int64_t tail_bytes_used; /* tail slots in use */
  int64_t bytes_used;      /* the two together: format-spec tail_c2 */
  int64_t bytes_reserved;  /* the caller's memory */
  double bits_per_element; /* bytes_used * 8 over tokens * layers * kv_heads * (dk + dv); 0 when empty */
  int64_t bytes_touched;   /* since 0.2: of the caller's memory, what was ever written to; the rest was never there if
                              the system gives memory when it is first used */
  kvq_accuracy accuracy;   /* since 0.2: the class that attention keeps to, never KVQ_ACCURACY_DEFAULT */
} kvq_cache_report;
KVQ_API kvq_error *kvq_report(const kvq_cache *cache, kvq_cache_report *report);

/* ---- steps (since 0.1) ------------------------------------------------------------------------------------------- */
typedef struct kvq_step kvq_step;
typedef struct kvq_plan_desc {
  size_t struct_size;
  int32_t count;               /* sequences that take part */
  const int32_t *sequences;    /* their ids, each once */
  const int32_t *new_tokens;   /* tokens that each appends, at least 0 */
  const int32_t *first_tokens; /* where each sequence's new tokens begin along T of the step's tensors; NULL: they are
                                  the last ones, T - new_tokens (left padding) */
  int32_t past_only;           /* since 0.2. 1: attention answers over the tokens before the step alone, in the state at
                                  its begin, for raw prefill (prefill_c2): kvq_attend comes before kvq_append, takes any
                                  number of new tokens, and the caller merges its lse with attention over the new ones,
                                  without sink logits: they take part here.
                                  KVQ_UNSUPPORTED: from among the kept tokens (commit_c7) beyond an attention window */
} kvq_plan_desc;
/* Blocks that kvq_plan with this desc would take from the pool: new pages and copies of shared ones. Since 0.2. */
KVQ_API kvq_error *kvq_plan_blocks(const kvq_cache *cache, const kvq_plan_desc *desc, int64_t *blocks);
/* Opens a step: reserves blocks (KVQ_RESOURCE_EXHAUSTED names how many are missing) and fixes the work list. One step
 * per cache is open at a time; it lives in the cache's memory, and a step like an earlier one (so many sequences, so
 * many new tokens) allocates nothing from here to its end. */
KVQ_API kvq_error *kvq_plan(kvq_cache *cache, const kvq_plan_desc *desc, kvq_step **step);
/* Scratch that kvq_attend and kvq_forward of this step need, 64-byte aligned, where the context's kernels see it; it
 * may be shared by all layers. */
KVQ_API kvq_error *kvq_workspace_bytes(const kvq_step *step, size_t *bytes);
/* Streams: kvq_attend and kvq_forward hand their work to `stream` (NULL: the context's own), and out and lse are there
 * when it was waited for. kvq_append, kvq_read and all else that takes no stream reads tensors from the host's point of
 * view: they must be there when it is called, and it is done with them when it returns. Whatever a cache does, on
 * whichever streams, comes behind what it did before. A failure of the device is the error of the next call. */
/* k, v: [count, kv_heads, T, dk or dv], rows contiguous. Appends all new tokens of one layer, once per layer and step.
 * KVQ_BAD_VALUE names sequence, token, head and channel. */
KVQ_API kvq_error *kvq_append(kvq_step *step, int32_t layer, const kvq_tensor *k, const kvq_tensor *v);
/* q, out: [count, q_heads, T, dk / dv]; lse: NULL or f32 [count, q_heads, T], natural logarithm. After kvq_append, for
 * steps of at most 32 new tokens a sequence; rows of padding are left as they are. stream: NULL on a CPU, else also
 * one of kvq_stream_create. */
KVQ_API kvq_error *kvq_attend(kvq_step *step, int32_t layer, const kvq_tensor *q, float scale, void *workspace,
                              size_t workspace_bytes, void *stream, const kvq_tensor *out, const kvq_tensor *lse);
/* kvq_append and kvq_attend in chunks, for any number of new tokens (format-spec commit_c4: stored prefill). */
KVQ_API kvq_error *kvq_forward(kvq_step *step, int32_t layer, const kvq_tensor *q, const kvq_tensor *k,
                               const kvq_tensor *v, float scale, void *workspace, size_t workspace_bytes, void *stream,
                               const kvq_tensor *out, const kvq_tensor *lse);
/* Ends the step: every layer must have appended. Advances all sequences at once; the step is gone. On error it is
 * still open. */
KVQ_API kvq_error *kvq_commit_step(kvq_step *step);
/* Ends the step without effect: it is gone. */
KVQ_API void kvq_abort_step(kvq_step *step);

/* All tokens of a sequence in one layer as dense rows, dequantized where they are quantized: k [kv_heads, tokens, dk],
 * v [kv_heads, tokens, dv] in the cache's dtype. Not while a step is open. */
KVQ_API kvq_error *kvq_read(kvq_cache *cache, int32_t sequence, int32_t layer, const kvq_tensor *k,
                            const kvq_tensor *v);
/* The same of tokens `first` .. length - 1, for sequences that have dropped earlier ones. Since 0.2. */
KVQ_API kvq_error *kvq_read_from(kvq_cache *cache, int32_t sequence, int32_t layer, int64_t first, const kvq_tensor *k,
                                 const kvq_tensor *v);

/* Packed data in place, for user kernels (page_c4): the page of KV head h of the block with number n, of
 * kvq_format_page_bytes, is at pages + n * block_stride + h * head_stride, strides in bytes. Valid until
 * kvq_cache_grow. On a device with memory of its own an address there, in the layout profile that it wants (layout_c6:
 * the request texts of kvq_context_kernels name it). Since 0.2. */
KVQ_API kvq_error *kvq_layer_page_strides(const kvq_cache *cache, int32_t layer, void **pages, int64_t *block_stride,
                                          int64_t *head_stride);
/* The same for caches with one KV head. Until 0.1 a block held the pages of all heads one after the other; now it does
 * not, and for more heads this is KVQ_UNSUPPORTED: use kvq_layer_page_strides. */
KVQ_API kvq_error *kvq_layer_pages(const kvq_cache *cache, int32_t layer, void **pages, int64_t *block_stride);
/* Numbers of the blocks of a sequence, in order, from its first_block on: up to `capacity` into `blocks`, how many it
 * owns into `count`. Numbers have gaps: not each below a cache's blocks is one, and some are above (page_c4). */
KVQ_API kvq_error *kvq_sequence_blocks(const kvq_cache *cache, int32_t sequence, size_t capacity, int32_t *blocks,
                                       size_t *count);

/* Combines partial attention results over disjoint keys (merge_c1): o [splits, n, heads, dv] f32 and lse
 * [splits, n, heads] f32 into out [n, heads, dv] of `out`'s dtype and out_lse [n, heads] f32 (may be NULL). */
KVQ_API kvq_error *kvq_merge(kvq_context *context, const kvq_tensor *o, const kvq_tensor *lse, void *stream,
                             const kvq_tensor *out, const kvq_tensor *out_lse);

/* ---- memory and streams of a device (since 0.2) -------------------------------------------------------------------
 * For kernels of users. On a host ("cpu", "ref") a buffer is host memory and everything is done when a call returns. On
 * a device with memory of its own, work on a stream is done in order, some time later: what goes wrong while it is done
 * is the error of the next wait (kvq_buffer_download, kvq_stream_synchronize) and of every call afterwards. Calls on
 * one context, its buffers and its streams may run at once. */
typedef struct kvq_buffer kvq_buffer;
/* Uninitialised, aligned to at least 64 bytes. KVQ_RESOURCE_EXHAUSTED: the device's memory is full. */
KVQ_API kvq_error *kvq_buffer_create(kvq_context *context, size_t bytes, kvq_buffer **buffer);
KVQ_API void kvq_buffer_destroy(kvq_buffer *buffer); /* after all work that was handed in; before the context */
KVQ_API uint64_t kvq_buffer_address(const kvq_buffer *buffer); /* as kernels take it; 0 for NULL */
KVQ_API size_t kvq_buffer_bytes(const kvq_buffer *buffer);
/* Copies to and from bytes [offset, offset + bytes) of a buffer, behind the work of the stream. Both have finished on
 * return. stream: NULL, the context's own, or one of kvq_stream_create. */
KVQ_API kvq_error *kvq_buffer_upload(kvq_buffer *buffer, size_t offset, const void *data, size_t bytes, void *stream);
KVQ_API kvq_error *kvq_buffer_download(kvq_buffer *buffer, size_t offset, void *data, size_t bytes, void *stream);
KVQ_API kvq_error *kvq_buffer_fill(kvq_buffer *buffer, size_t offset, uint8_t value, size_t bytes, void *stream);
/* Streams are not ordered among each other. KVQ_UNSUPPORTED on a host, which has none but NULL. */
KVQ_API kvq_error *kvq_stream_create(kvq_context *context, void **stream);
KVQ_API void kvq_stream_destroy(kvq_context *context, void *stream); /* after its work; before the context */
KVQ_API kvq_error *kvq_stream_synchronize(kvq_context *context, void *stream);

/* ---- user kernels (since 0.1): tile programs as text, docs/generated/dialect.md -------------------------------------
 */
typedef struct kvq_kernel kvq_kernel;
/* Compiles the one kernel of an IR module. On a mistake in the text the message begins with line:column. */
KVQ_API kvq_error *kvq_kernel_compile(kvq_context *context, const char *text, kvq_kernel **kernel);
/* The same of a module with several kernels, which has the one named `entry`. On devices "cuda" and "ptxsim" the text
 * may be PTX; a line that the device cannot run is an error. Since 0.2. */
KVQ_API kvq_error *kvq_kernel_compile_entry(kvq_context *context, const char *text, const char *entry,
                                            kvq_kernel **kernel);
/* A built-in kernel by its canonical request text (runtime/format/problem.h), for tests, tools and engines that plan
 * their own launches: its arguments are those of kernel_abi.h. On device "ref" it is the scalar reference. */
KVQ_API kvq_error *kvq_kernel_open(kvq_context *context, const char *request, kvq_kernel **kernel);
/* An attend kernel with a score function. Arguments of one in IR behind the key become arguments of the kernel, behind
 * its own. Since 0.2. */
KVQ_API kvq_error *kvq_kernel_open_scored(kvq_context *context, const char *request, const kvq_score_function *score,
                                          kvq_kernel **kernel);
/* A built-in kernel with exactly this schedule, whichever was chosen for the request (kvq_schedule_set). score: of an
 * attend kernel, or NULL. KVQ_INVALID_ARGUMENT: the schedule is none of kvq_schedule_space; the message has the
 * nearest. KVQ_UNSUPPORTED on device "ref", and in a frozen context whose store has no such kernel. Since 0.2. */
KVQ_API kvq_error *kvq_kernel_open_scheduled(kvq_context *context, const char *request, const kvq_score_function *score,
                                             const char *schedule, kvq_kernel **kernel);
/* The schedule that it was compiled with, owned by the kernel; "": the default one, or no built-in kernel. Since 0.2.
 */
KVQ_API const char *kvq_kernel_schedule(const kvq_kernel *kernel);
/* How many warps of it run at once on the device, in blocks of its own size: a grid of more takes turns. Since 0.2.
 * KVQ_UNSUPPORTED on a host; KVQ_INVALID_ARGUMENT: a kernel given as PTX that was not made for one size of blocks. */
KVQ_API kvq_error *kvq_kernel_resident_warps(const kvq_kernel *kernel, int64_t *warps);
KVQ_API void kvq_kernel_destroy(kvq_kernel *kernel);
/* Its arguments, one word each: "ptr<f32>", "i64", "i32", "f32"; separated by spaces, owned by the kernel. Of a kernel
 * given as PTX, which says no more, their bits: "b64", "b32". */
KVQ_API const char *kvq_kernel_signature(const kvq_kernel *kernel);
/* Runs grid[0] * grid[1] * grid[2] programs. args as in kernel_abi.h; `count` must match the signature. On a GPU the
 * work is done later, and a kernel given as PTX runs so many blocks of its own size. */
KVQ_API kvq_error *kvq_kernel_launch(kvq_kernel *kernel, const uint64_t *args, int32_t count, const int64_t grid[3],
                                     void *stream);
/* A launch on a device that has blocks of threads. Since 0.2. */
typedef struct kvq_launch {
  size_t struct_size;
  const uint64_t *args; /* one for each of the signature's words, in its low bits; addresses of buffers for pointers */
  int32_t count;
  uint32_t grid[3];     /* blocks */
  uint32_t block[3];    /* threads of a block; all 0: the size that the kernel was made for (.reqntid) */
  int64_t shared_bytes; /* dynamic shared memory of a block */
  void *stream;
} kvq_launch;
/* KVQ_INVALID_ARGUMENT: the kernel cannot be launched so; a built-in kernel is launched over programs, by
 * kvq_kernel_launch. KVQ_UNSUPPORTED on a host: use kvq_kernel_launch. */
KVQ_API kvq_error *kvq_kernel_launch_blocks(kvq_kernel *kernel, const kvq_launch *launch);

/* ---- schedules (since 0.2): docs/tuning.md -------------------------------------------------------------------------
 * How a kernel runs, "tile_tokens=64,rows=8,vectors=8,prefetch=1". It never changes an answer beyond the accuracy
 * class. These calls may run at once with each other and with all others on the context. KVQ_UNSUPPORTED on device
 * "ref". */
/* The schedules that a request can have on the context's level: one a line, " (default)" behind the default one, with a
 * NUL behind the last newline. `bytes` is how many that are; `text`, of `capacity` bytes, is written where it is large
 * enough and otherwise left as it is, so that capacity 0 asks for the size. KVQ_INVALID_ARGUMENT: no such request. */
KVQ_API kvq_error *kvq_schedule_space(kvq_context *context, const char *request, size_t capacity, char *text,
                                      size_t *bytes);
/* Chooses the schedule that kernels of this request, with this score function (NULL: none), are opened with from now
 * on: here, and in every context with the same store folder on the same machine, level and compiler. NULL: forgets the
 * choice. Kernels that are open stay as they are, those of caches until kvq_cache_refresh_kernels. It is kept as a file
 * beside the kernels. A chosen schedule without a kernel, in a frozen context for example, is passed over: the kernel
 * then has the default one, and kvq_kernel_schedule says so. KVQ_INVALID_ARGUMENT: the schedule is none of
 * kvq_schedule_space; KVQ_FAILED_PRECONDITION: the context is frozen or has no store; KVQ_PERMISSION: its folder cannot
 * be written. */
KVQ_API kvq_error *kvq_schedule_set(kvq_context *context, const char *request, const kvq_score_function *score,
                                    const char *schedule);
/* The same for a machine that need not be here: compiles the kernel with the schedule for `target` into the context's
 * store (kvq_prepare_targets puts those with default schedules there) and makes the schedule the choice of `machine`,
 * which is the text of kvq_context_machine on a context of that target there. KVQ_INVALID_ARGUMENT: also where the
 * machine is of another target. */
KVQ_API kvq_error *kvq_schedule_prepare(kvq_context *context, const char *target, const char *machine,
                                        const char *request, const kvq_score_function *score, const char *schedule,
                                        kvq_kernel_visitor progress, void *user_data);
/* Opens the kernels that the cache has opened so far again, so that they have the schedules that are chosen now: all of
 * them or, on an error, none. Between steps: KVQ_FAILED_PRECONDITION while one is open. Compiles what is not in the
 * store. */
KVQ_API kvq_error *kvq_cache_refresh_kernels(kvq_cache *cache);

/* ---- split policies (since 0.2): docs/tuning.md --------------------------------------------------------------------
 * How attention splits the keys of a sequence over programs, "tokens=1024,programs=128,least=16,most=64": into splits
 * of `tokens` tokens (16 to 1048576), whole pages, whose length is doubled until there are at most programs / kv_heads
 * of them (programs: 1 to 65536), though never fewer than `least` (1 to 512) nor more than `most` (least to 512) may be
 * had. It has an answer for every length and depends on neither the other sequences of a step nor the number of
 * threads, so that results do not either. Another policy changes an answer within the accuracy class, and nothing that
 * is stored.
 *
 * A policy is chosen for a request, which says what it depends on: that of the cache's attention, with "split" in the
 * place of "attend" and the number of KV heads in that of rows:
 *   split:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:heads2:lag0:win0:cap0:exact
 * These calls may run at once with each other and with all others on the context. */
/* That of caches on the context's device for which none is given or chosen. */
KVQ_API const char *kvq_split_policy_default(const kvq_context *context);
/* The one that was chosen for the request, NUL-terminated, into `text` of `capacity` bytes (64 is enough); "": none, as
 * where the file is damaged or others may write to it, and on device "ref". Reads a small file and writes nothing.
 * KVQ_INVALID_ARGUMENT: no such request. */
KVQ_API kvq_error *kvq_split_policy_get(kvq_context *context, const char *request, size_t capacity, char *text);
/* Chooses the policy that caches of this request, for which none is given, are made with from now on: here, and in
 * every context with the same store folder on the same machine, level and compiler. NULL: forgets the choice. Caches
 * that are there stay as they are. It is kept as a file beside the kernels. KVQ_INVALID_ARGUMENT: no such request or
 * policy; KVQ_FAILED_PRECONDITION: the context is frozen or has no store; KVQ_PERMISSION: its folder cannot be written;
 * KVQ_UNSUPPORTED: device "ref". */
KVQ_API kvq_error *kvq_split_policy_set(kvq_context *context, const char *request, const char *policy);
/* The one that the cache has, owned by it. */
KVQ_API const char *kvq_cache_split_policy(const kvq_cache *cache);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVQ_H */
