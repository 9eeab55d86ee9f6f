# SPDX-License-Identifier: Apache-2.0
"""PTX instructions in plain Python, one element at a time, written from the text of the PTX ISA manual (release 9.0).

It shares no code and no thought with the simulator: where both disagree, the section that the docstring names decides.
Registers are unsigned Python integers; a warp's registers are lists of 32, one for each lane.
"""
