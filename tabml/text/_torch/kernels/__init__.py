"""What tokens and texts cost on a CPU, compiled by numba; :mod:`tabml.text._torch.kernels.door` is the way in."""
