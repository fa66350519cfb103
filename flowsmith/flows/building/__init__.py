"""A corpus out of a folder of workflows: what is kept and why, on which models, and in which variants.

Import from the modules: `build` puts them together.
"""
