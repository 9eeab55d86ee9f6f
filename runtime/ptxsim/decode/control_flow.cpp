// SPDX-License-Identifier: Apache-2.0
//
// Post-dominators by the iterative algorithm of Cooper, Harvey and Kennedy (A simple, fast dominance algorithm, 2001),
// on basic blocks of the reversed graph, whose root is a block behind the last operation.
#include "runtime/ptxsim/decode/control_flow.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {

constexpr int kUndefined = -1;

bool endsBlock(const Op &op) {
  return op.flow == Flow::Branch || op.flow == Flow::BranchTable || op.flow == Flow::Exit || op.flow == Flow::Trap;
}

} // namespace

ControlFlowGraph controlFlow(const std::vector<Op> &operations) {
  const uint32_t count = uint32_t(operations.size());
  std::vector<char> leader(count + 1, 0);
  leader[0] = leader[count] = 1;
  for (uint32_t i = 0; i < count; ++i) {
    if (!endsBlock(operations[i]))
      continue;
    leader[i + 1] = 1;
    if (operations[i].flow == Flow::Branch)
      leader[operations[i].target] = 1;
    if (operations[i].flow == Flow::BranchTable)
      for (uint32_t target : *operations[i].targets)
        leader[target] = 1;
  }
  ControlFlowGraph graph;
  std::vector<int> blockAt(count + 1, 0);
  for (uint32_t i = 0; i <= count; ++i) {
    if (leader[i])
      graph.begins.push_back(i);
    blockAt[i] = int(graph.begins.size()) - 1;
  }
  const int exit = int(graph.begins.size()) - 1;
  graph.successors.resize(exit + 1);
  graph.predecessors.resize(exit + 1);
  for (int block = 0; block < exit; ++block) {
    const uint32_t last = graph.begins[block + 1] - 1;
    const Op &op = operations[last];
    std::vector<int> &next = graph.successors[block];
    if (op.flow == Flow::Branch)
      next.push_back(blockAt[op.target]);
    if (op.flow == Flow::BranchTable)
      for (uint32_t target : *op.targets)
        next.push_back(blockAt[target]);
    const bool falls = !endsBlock(op) || op.guarded;
    if (op.flow == Flow::Exit || op.flow == Flow::Trap)
      next.push_back(exit);
    if (falls)
      next.push_back(block + 1);
    for (int to : next)
      graph.predecessors[to].push_back(block);
  }
  return graph;
}

namespace {

// Blocks in post-order of the reversed graph, from the exit.
std::vector<int> postOrder(const ControlFlowGraph &graph, int root) {
  std::vector<int> order;
  std::vector<char> seen(graph.successors.size(), 0);
  std::vector<std::pair<int, size_t>> stack = {{root, 0}};
  seen[root] = 1;
  while (!stack.empty()) {
    auto &[block, next] = stack.back();
    if (next == graph.predecessors[block].size()) {
      order.push_back(block);
      stack.pop_back();
      continue;
    }
    const int to = graph.predecessors[block][next++];
    if (!seen[to]) {
      seen[to] = 1;
      stack.push_back({to, 0});
    }
  }
  return order;
}

std::vector<int> postDominators(const ControlFlowGraph &graph) {
  const int exit = int(graph.successors.size()) - 1;
  const std::vector<int> order = postOrder(graph, exit);
  std::vector<int> number(graph.successors.size(), kUndefined), parent(graph.successors.size(), kUndefined);
  for (size_t i = 0; i < order.size(); ++i)
    number[order[i]] = int(i);
  parent[exit] = exit;
  for (bool changed = true; changed;) {
    changed = false;
    for (auto block = order.rbegin(); block != order.rend(); ++block) {
      if (*block == exit)
        continue;
      int common = kUndefined;
      for (int next : graph.successors[*block]) {
        if (parent[next] == kUndefined)
          continue;
        int other = next;
        while (common != kUndefined && common != other) {
          if (number[common] < number[other])
            common = parent[common];
          else
            other = parent[other];
        }
        common = other;
      }
      changed |= common != parent[*block];
      parent[*block] = common;
    }
  }
  return parent;
}

} // namespace

void findReconvergence(std::vector<Op> &operations) {
  if (operations.empty())
    return;
  const ControlFlowGraph graph = controlFlow(operations);
  const std::vector<int> parent = postDominators(graph);
  for (size_t block = 0; block + 1 < graph.begins.size(); ++block) {
    Op &op = operations[graph.begins[block + 1] - 1];
    if (op.flow == Flow::Branch || op.flow == Flow::BranchTable)
      op.reconverge = parent[block] == kUndefined ? uint32_t(operations.size()) : graph.begins[parent[block]];
  }
}

} // namespace kvq::ptxsim
