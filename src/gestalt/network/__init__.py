"""The panoptic network: images in, detections and semantics out, merged into a panoptic map."""
