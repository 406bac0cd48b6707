"""An operator seen through a decoder, y = H D(z)."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from torch import Tensor

from ..operators import Operator
from ..operators.proximal import proximal
from .autoencoder import Autoencoder, Cotangent, Identity

__all__ = ["Decoded", "Parts", "parts_of"]


class Decoded(Operator):
    """y = H D(z): a linear operator on the images that latents are decoded to.

    It is not linear, and has no adjoint, projection or singular values. The start of a run, in place of H+ y, is
    E(H+ y). Solvers reach the rest through ``parts_of``.

    Args:
        pixels: H, an operator on images in [-1, 1].
        autoencoder: D and E.

    Attributes:
        shape: of the latent of one image.
        image: of one image.
    """

    kind = "krylov"
    parts = ()

    def __init__(self, pixels: Operator, autoencoder: Autoencoder) -> None:
        image = (autoencoder.channels, *pixels.shape[1:]) if pixels.any_channels else pixels.shape
        measurement = image if pixels.any_channels else pixels.measurement_shape
        self.pixels, self.autoencoder, self.image = pixels, autoencoder, image
        # The shapes of latents are not checked as those of images are, whose last side is no number of channels.
        self.shape, self.measurement_shape = autoencoder.latent_shape(image), measurement
        self._cache = {}

    @property
    def batch(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images that H was made for."""
        return self.pixels.batch

    def repeat(self, n: int) -> Operator:
        return self if self.batch is None else Decoded(self.pixels.repeat(n), self.autoencoder)

    def take(self, places: Tensor) -> Operator:
        return self if self.batch is None else Decoded(self.pixels.take(places), self.autoencoder)

    # ------------------------------------------------------------------------------------ maps
    def decoded(self, z: Tensor) -> Tensor:
        """D(z), (B, *shape) to (B, *image)."""
        return self.autoencoder.decode(z, self.image)

    def forward(self, x: Tensor) -> Tensor:
        """H D(z), (B, *shape) to (B, *measurement_shape)."""
        self._check("x", x, self.shape)
        return self.pixels.forward(self.decoded(x))

    def pinv(self, y: Tensor) -> Tensor:
        """E(H+ y), (B, *measurement_shape) to (B, *shape)."""
        return self.start(y, 0.0)

    def start(self, y: Tensor, noise_std: float) -> Tensor:
        """E((H^T H + noise_std^2)^-1 H^T y), which is E(H+ y) without noise."""
        self.check_measurement(y)
        zeros = y.new_zeros((len(y), *self.image))
        return self.autoencoder.encode(proximal(self.pixels, y, zeros, noise_std**2))

    def check_measurement(self, y: Tensor) -> None:
        self.pixels.check_measurement(y)
        if tuple(y.shape[1:]) != self.measurement_shape:
            raise ValueError(
                f"y: must have shape (B, {', '.join(map(str, self.measurement_shape))}), since the autoencoder takes "
                f"images {self.image}, got {tuple(y.shape)}"
            )

    def encode(self, y: Tensor) -> Tensor:
        return self.pinv(y)

    def lift(self, c: Tensor) -> Tensor:
        return c

    # ------------------------------------------------------------------------------------ what there is not
    def down(self, x: Tensor) -> NoReturn:
        self._refuse("down")

    def decode(self, c: Tensor) -> NoReturn:
        self._refuse("decode")

    def adjoint(self, y: Tensor) -> NoReturn:
        self._refuse("adjoint")

    def project(self, x: Tensor) -> NoReturn:
        self._refuse("project")

    @property
    def singular_values(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._refuse("singular_values")

    def _refuse(self, name: str) -> NoReturn:
        raise AttributeError(f"{name}: {self!r} is not linear in the latents and has none; its attribute pixels is H")

    def __repr__(self) -> str:
        return f"Decoded({self.pixels!r}, {self.autoencoder!r}, latents {self.shape})"


class Parts(NamedTuple):
    """H on images, and the maps between these and states: the identity where states are images.

    Attributes:
        pixels: H.
        autoencoder: the maps.
        image: the shape of one image; None where states are images.
    """

    pixels: Operator
    autoencoder: Autoencoder | Identity
    image: tuple[int, ...] | None

    def decode(self, z: Tensor) -> Tensor:
        """D(z)."""
        return z if isinstance(self.autoencoder, Identity) else self.autoencoder.decode(z, self.image)

    def encode(self, x: Tensor) -> Tensor:
        """E(x)."""
        return self.autoencoder.encode(x)

    def pull_decoder(self, z: Tensor, cotangent: Cotangent) -> Tensor:
        """J_D^T v at z, with v = cotangent(D(z))."""
        if isinstance(self.autoencoder, Identity):
            return cotangent(z)
        return self.autoencoder.pull_decoder(z, cotangent, self.image)

    def pull_encoder(self, x: Tensor, cotangent: Cotangent) -> Tensor:
        """J_E^T v at x, with v = cotangent(E(x))."""
        return self.autoencoder.pull_encoder(x, cotangent)


def parts_of(operator: Operator) -> Parts:
    """H, D and E of an operator, whether it acts on states or on decoded ones."""
    if isinstance(operator, Decoded):
        return Parts(operator.pixels, operator.autoencoder, operator.image)
    return Parts(operator, Identity(), None)
