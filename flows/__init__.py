"""Prefect flows: when, in what order, with what retries. They call DVC, our command line and git.

Nothing here computes: ``dvc repro`` alone gives the same bytes, and no room of ``gestalt`` is imported.
"""
