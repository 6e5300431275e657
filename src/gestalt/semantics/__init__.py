"""Pseudo-classes: dense features clustered over many images; every pixel gets a cluster, guided by depth."""

from gestalt.semantics.labeller import SemanticLabeller

__all__ = ["SemanticLabeller"]
