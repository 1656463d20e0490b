"""A miniature Stable Diffusion from nothing: pictures -> autoencoder -> CLIP -> denoiser -> detectors -> card."""


class BadInput(ValueError):
    """Something that whoever started the recipe can mend: told in one line, exit code 2."""
