"""Trust in the labels: measures of every frame and segment, expectations, a gate, pictures, offline pages.

Reads the label table and stored maps. The only room that imports Great Expectations.
"""
