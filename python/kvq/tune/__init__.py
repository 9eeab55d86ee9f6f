# SPDX-License-Identifier: Apache-2.0
"""The autotuner's policy: which candidates are tried in which order, when one is better than another, what is kept.

It knows neither the compiler's knobs nor how a kernel is launched: a schedule is a text, and a Runner (problem.py)
compiles, checks and times it. docs/tuning.md has the commands.
"""
