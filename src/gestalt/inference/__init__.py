"""Inference: images, folders and videos in, panoptic maps and pictures out."""
