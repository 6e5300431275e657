"""Thin entry points of the DVC stages: read a section, call a room, write outputs and metrics."""

import os

# OpenMP reads this when torch is loaded, so it must stand before any stage's imports: threads that spin
# while they wait cost several times the work itself on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
