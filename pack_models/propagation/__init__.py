"""Thermal runaway: does it spread, how fast, what stops it.

Three rungs share one case file and one kinetics kernel: `lumped` (one body), `network` (finite volumes) and
`fem` (dolfinx, its own process). README.md explains the case file, the outputs and what each rung is
validated against.
"""
