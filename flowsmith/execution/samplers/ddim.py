"""DDIM without noise (Song et al. 2021, arXiv 2010.02502): in latents over sigma it is Euler's method."""

from flowsmith.execution.samplers.euler import euler
from flowsmith.execution.samplers.registry import register

# Section 4.3, equation 14: dividing the variance-preserving latents by the square root of the signal's share
# turns the update into a straight step in sigma. ComfyUI's "ddim" differs from its "euler" under masks only.
register("ddim")(euler)
