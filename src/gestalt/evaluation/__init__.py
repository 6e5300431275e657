"""Judging stored predictions: intersections of segments, matching, panoptic and semantic quality.

Everything is computed from tables of segment intersections (``intersections``): one pass over the pixels of
an image, after which any assignment, convention or class mask works without pixels.
"""
