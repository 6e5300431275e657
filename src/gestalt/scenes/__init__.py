"""Rendered driving video with exact truth: worlds from a seed, a ray caster, layouts of real data sets."""
