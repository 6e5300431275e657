"""The record of what happened: MLflow runs on a local SQLite store, lineage, the registered model.

Numbers, pictures and pointers live here; DVC owns the bytes. Tracking is a side effect: nothing reads it back
to compute a result, and a store that cannot be written costs one warning. The only room that imports MLflow.
"""
