"""Panoptic pseudo-labels: object proposals and pseudo-classes fused, counted, split into things and stuff."""
