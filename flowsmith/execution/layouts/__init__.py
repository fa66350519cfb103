"""The layouts that model files come in, one file each: their names and shapes, and how diffusers names them."""
