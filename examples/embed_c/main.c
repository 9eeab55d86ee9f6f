/* SPDX-License-Identifier: Apache-2.0
 *
 * A C program that stores a prompt in a quantized KV cache, decodes from it and checks the answers against dense
 * attention over what it put in. Usage: embed_c [cpu|ref]
 */
#include <kvq/kvq.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, Q_HEADS = 6, KV_HEADS = 2, D = 64, PROMPT = 300, DECODE = 40, TOKENS = PROMPT + DECODE };

static void check(kvq_error *error, const char *what) {
  if (!error)
    return;
  fprintf(stderr, "%s: %s\n", what, kvq_error_message(error));
  kvq_error_free(error);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) {
    fprintf(stderr, "no memory for %zu bytes\n", bytes);
    exit(1);
  }
  return memory;
}

/* Values in [-1, 1) from a fixed sequence: every run is the same. */
static float next_value(void) {
  static uint32_t state = 12345;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* One layer's values, as a model would make them: [heads][TOKENS][D]. */
typedef struct layer {
  float *q, *k, *v, *out;
} layer;

static layer make_layer(void) {
  layer made = {allocate(sizeof(float) * Q_HEADS * TOKENS * D), allocate(sizeof(float) * KV_HEADS * TOKENS * D),
                allocate(sizeof(float) * KV_HEADS * TOKENS * D), allocate(sizeof(float) * Q_HEADS * TOKENS * D)};
  for (int i = 0; i < Q_HEADS * TOKENS * D; ++i)
    made.q[i] = next_value();
  for (int i = 0; i < KV_HEADS * TOKENS * D; ++i) {
    made.k[i] = next_value();
    made.v[i] = next_value();
  }
  return made;
}

/* The view [1, heads, count, D] of tokens [first, first + count). */
static kvq_tensor view(float *data, int heads, int first, int count) {
  kvq_tensor tensor = {data + (size_t)first * D,
                       KVQ_F32,
                       KVQ_CPU,
                       4,
                       {1, heads, count, D},
                       {(int64_t)heads * TOKENS * D, (int64_t)TOKENS * D, D, 1}};
  return tensor;
}

static void run_step(kvq_cache *cache, int32_t sequence, layer *layers, int first, int32_t count) {
  kvq_plan_desc desc = {.struct_size = sizeof(desc), .count = 1, .sequences = &sequence, .new_tokens = &count};
  kvq_step *step;
  check(kvq_plan(cache, &desc, &step), "kvq_plan");
  size_t bytes;
  check(kvq_workspace_bytes(step, &bytes), "kvq_workspace_bytes");
  void *workspace = allocate(bytes);
  const float scale = 1.0f / sqrtf((float)D);
  for (int l = 0; l < LAYERS; ++l) {
    kvq_tensor q = view(layers[l].q, Q_HEADS, first, count), k = view(layers[l].k, KV_HEADS, first, count);
    kvq_tensor v = view(layers[l].v, KV_HEADS, first, count), out = view(layers[l].out, Q_HEADS, first, count);
    if (count > 1) {
      check(kvq_forward(step, l, &q, &k, &v, scale, workspace, bytes, NULL, &out, NULL), "kvq_forward");
    } else {
      check(kvq_append(step, l, &k, &v), "kvq_append");
      check(kvq_attend(step, l, &q, scale, workspace, bytes, NULL, &out, NULL), "kvq_attend");
    }
  }
  check(kvq_commit_step(step), "kvq_commit_step");
  free(workspace);
}

/* Dense causal attention of one query in f64, from the values as they were. */
static void dense(const layer *in, int head, int position, double *out) {
  const float *q = in->q + ((size_t)head * TOKENS + position) * D;
  const size_t kv = (size_t)(head / (Q_HEADS / KV_HEADS)) * TOKENS * D;
  double sum = 0;
  memset(out, 0, sizeof(double) * D);
  for (int j = 0; j <= position; ++j) {
    double score = 0;
    for (int c = 0; c < D; ++c)
      score += (double)q[c] * in->k[kv + (size_t)j * D + c];
    /* |score| is below D, so exp cannot overflow and needs no maximum. */
    const double weight = exp(score / sqrt((double)D));
    sum += weight;
    for (int c = 0; c < D; ++c)
      out[c] += weight * in->v[kv + (size_t)j * D + c];
  }
  for (int c = 0; c < D; ++c)
    out[c] /= sum;
}

static double relative_error(const layer *in) {
  double wrong = 0, right = 0, expected[D];
  for (int head = 0; head < Q_HEADS; ++head)
    for (int position = 0; position < TOKENS; ++position) {
      dense(in, head, position, expected);
      const float *out = in->out + ((size_t)head * TOKENS + position) * D;
      for (int c = 0; c < D; ++c) {
        wrong += (out[c] - expected[c]) * (out[c] - expected[c]);
        right += expected[c] * expected[c];
      }
    }
  return sqrt(wrong / right);
}

static void show_kernel(void *user_data, const kvq_kernel_info *info) {
  (void)user_data;
  printf("  %-8s %6.1f ms  %s\n", info->source, info->compile_ms, info->name);
}

int main(int argc, char **argv) {
  kvq_context_options options = {.struct_size = sizeof(options)};
  options.device = argc > 1 ? argv[1] : "cpu";
  kvq_context *context;
  check(kvq_context_create(&options, &context), "kvq_context_create");
  printf("kvq %s on device %s, level %s\n", kvq_version(), options.device, kvq_context_level(context));

  kvq_cache_config config = {.struct_size = sizeof(config),
                             .format = "kvq-8",
                             .layers = LAYERS,
                             .q_heads = Q_HEADS,
                             .kv_heads = KV_HEADS,
                             .dk = D,
                             .dv = D,
                             .dtype = KVQ_F32,
                             .blocks = 8,
                             .sequences = 1};
  check(kvq_query_support(context, &config), "kvq_query_support");
  size_t bytes;
  check(kvq_cache_memory_bytes(&config, &bytes), "kvq_cache_memory_bytes");
  void *memory = allocate(bytes);
  kvq_cache *cache;
  check(kvq_cache_create(context, &config, memory, bytes, &cache), "kvq_cache_create");
  puts("kernels:");
  check(kvq_cache_prepare(cache, show_kernel, NULL), "kvq_cache_prepare");

  int32_t sequence;
  check(kvq_sequence_add(cache, &sequence), "kvq_sequence_add");
  layer layers[LAYERS];
  for (int l = 0; l < LAYERS; ++l)
    layers[l] = make_layer();
  run_step(cache, sequence, layers, 0, PROMPT);
  for (int position = PROMPT; position < TOKENS; ++position)
    run_step(cache, sequence, layers, position, 1);

  int failed = 0;
  for (int l = 0; l < LAYERS; ++l) {
    const double error = relative_error(&layers[l]);
    failed |= !(error < 0.02);
    printf("layer %d: relative error %.5f against dense attention\n", l, error);
  }
  kvq_cache_report report = {.struct_size = sizeof(report)};
  check(kvq_report(cache, &report), "kvq_report");
  printf("%lld tokens in %lld bytes (%lld of %lld blocks and the window): %.2f bits an element\n",
         (long long)report.tokens, (long long)report.bytes_used, (long long)report.blocks_used,
         (long long)report.blocks_capacity, report.bits_per_element);

  for (int l = 0; l < LAYERS; ++l) {
    free(layers[l].q);
    free(layers[l].k);
    free(layers[l].v);
    free(layers[l].out);
  }
  check(kvq_sequence_remove(cache, sequence), "kvq_sequence_remove");
  kvq_cache_destroy(cache);
  kvq_context_destroy(context);
  free(memory);
  if (failed)
    fputs("an error is above 2 %: the cache gave wrong answers\n", stderr);
  return failed;
}
