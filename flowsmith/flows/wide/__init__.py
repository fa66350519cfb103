"""Flows at full width: every class, value and text of an installation in tokens, and a grammar that keeps pace.

Import from the modules: `width` (what makes a domain wide), `full_domain` (a domain from flows), `language` and
`spelling` (its tokens), `grammar`.
"""
