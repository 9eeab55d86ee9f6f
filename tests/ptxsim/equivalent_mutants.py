# SPDX-License-Identifier: Apache-2.0
"""Mutants that change nothing that a kernel may be held to, each with the argument. The keys are those of mutate.py, for
the PTX that the pinned nvcc makes; test_mutants.py fails where a key is stale or its mutant is caught after all."""

EQUIVALENT = {}
