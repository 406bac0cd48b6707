"""deepinv both ways: its physics, noise models, denoisers and reconstructors, tried on the package itself."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import ccfast
from ccfast.adapters import DeepinvReconstructor, deepinv_operator, from_deepinv, to_deepinv
from ccfast.adapters._deepinv_map import converted, pack
from ccfast.adapters._deepinv_noise import alike, measured_parts, with_weights
from ccfast.adapters.deepinv import shape_of
from ccfast.operators import FourierBlur, FourierDownsampling, Inpainting, SoftMask
from ccfast.operators.separable import Separable
from ccfast.schedules import VP
from ccfast.solvers import DDNM
from ccfast.testing import Gaussian, relative_error

deepinv = pytest.importorskip("deepinv", reason="the extra test installs deepinv")
P = deepinv.physics
SHAPE = (3, 8, 8)

pytestmark = pytest.mark.filterwarnings("ignore")  # deepinv warns of much that is not ours.


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def binary(*shape):
    return (draw(*shape, seed=1) < 0.5).float()


def blur(count=1, channels=1, height=3, width=4, dtype=torch.float32):
    """A filter that no exchange of rows, columns or directions leaves as it is."""
    taps = draw(count, channels, height, width, seed=2, dtype=dtype)
    return taps / taps.sum((2, 3), keepdim=True)


def column_times_row():
    return torch.outer(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.6, 0.3]))[None, None]


def stale():
    """A BlurFFT whose phase ``Module.to`` has replaced by its real part, so that A is no longer by its filter."""
    return P.BlurFFT(SHAPE, filter=blur()).to(torch.float64)


class Fourier(P.DecomposablePhysics):
    """A circular blur by a user, with complex coordinates, complex singular values and a truncated spectrum."""

    def V_adjoint(self, x):  # noqa: N802
        return torch.fft.fft2(x, norm="ortho")

    def V(self, x, **kwargs):  # noqa: N802
        return torch.fft.ifft2(x, norm="ortho").real

    U, U_adjoint = V, V_adjoint


class WrongAdjoint(P.LinearPhysics):
    def A(self, x, **kwargs):  # noqa: N802
        return 2.0 * x[..., ::2]

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return y.repeat_interleave(2, -1)


class OneImage(P.LinearPhysics):
    """A physics that takes one image in a call, as some scanners do."""

    def A(self, x, **kwargs):  # noqa: N802
        return x.reshape(SHAPE).roll(1, -1)[None, ..., ::2]

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        x = torch.zeros(SHAPE, dtype=y.dtype)
        x[..., ::2] = y.reshape(3, 8, 4)
        return x.roll(-1, -1)[None]


def tiled():
    count = P.TiledSpaceVaryingBlur.num_filters((8, 8), 6, 4)
    return P.TiledSpaceVaryingBlur(filters=draw(1, 1, math.prod(count), 3, 3), patch_size=6, stride=4)


def shifted():
    transform = deepinv.transform.Shift()
    parameters = {"x_shift": torch.tensor([2]), "y_shift": torch.tensor([1])}
    return P.VirtualLinearPhysics(physics=P.Inpainting(SHAPE, mask=0.5), transform=transform, g_params=parameters)


spectrum = torch.fft.fft2(blur(1, 1, 8, 8))
spectrum = spectrum.where(spectrum.abs() > 0.02, 0.0)
PADDINGS = ("valid", "circular", "replicate", "reflect", "zeros", "constant")
ROWS = {
    "Denoising": (lambda: P.Denoising(), SHAPE, Inpainting),
    "Inpainting": (lambda: P.Inpainting(SHAPE, mask=0.5), None, Inpainting),
    "Inpainting, a picture (H, W)": (lambda: P.Inpainting(SHAPE, mask=binary(8, 8)), None, Inpainting),
    "Inpainting, a mask for each image": (lambda: P.Inpainting(SHAPE, mask=binary(2, *SHAPE)), None, Inpainting),
    "Inpainting, weights": (lambda: P.Inpainting(SHAPE, mask=draw(1, 8, 8)), None, SoftMask),
    "Inpainting, signs": (lambda: P.Inpainting(SHAPE, mask=draw(*SHAPE) - 0.4), None, "PhysicsSVD"),
    "Demosaicing": (lambda: P.Demosaicing(SHAPE), None, Inpainting),
    "BlurFFT": (lambda: P.BlurFFT(SHAPE, filter=blur()), None, FourierBlur),
    "BlurFFT, odd sides": (lambda: P.BlurFFT((3, 7, 9), filter=blur()), None, FourierBlur),
    "BlurFFT, a filter for each image": (lambda: P.BlurFFT(SHAPE, filter=blur(2)), None, FourierBlur),
    "BlurFFT, a filter for each channel": (lambda: P.BlurFFT(SHAPE, filter=blur(1, 3)), None, "PhysicsSVD"),
    "BlurFFT, float64": (lambda: P.BlurFFT(SHAPE, filter=blur(dtype=torch.float64)), None, FourierBlur),
    "BlurFFT, stale": (stale, None, FourierBlur),
    "Blur, a filter for each channel": (lambda: P.Blur(blur(1, 3), padding="circular"), SHAPE, "PhysicsSVD"),
    "Blur, replicate, each channel": (lambda: P.Blur(blur(1, 3), padding="replicate"), SHAPE, "PhysicsOperator"),
    "Blur, replicate, each image": (lambda: P.Blur(blur(2), padding="replicate"), SHAPE, "CanvasBlur"),
    "Downsampling, no filter": (lambda: P.Downsampling(SHAPE, filter=None, factor=2), None, Separable),
    "Downsampling, bicubic": (lambda: P.Downsampling(SHAPE, filter="bicubic", factor=2), None, Separable),
    "Downsampling, sinc, odd": (
        lambda: P.Downsampling((3, 9, 10), filter="sinc", factor=2, padding="reflect"),
        None,
        Separable,
    ),
    "Downsampling, any filter": (lambda: P.Downsampling(SHAPE, filter=blur(), factor=2), None, FourierDownsampling),
    "Downsampling, each image": (lambda: P.Downsampling(SHAPE, filter=blur(2), factor=2), None, FourierDownsampling),
    "Downsampling, any filter, valid": (
        lambda: P.Downsampling(SHAPE, filter=blur(), factor=2, padding="valid"),
        None,
        "PhysicsOperator",
    ),
    "DownsamplingMatlab": (lambda: P.DownsamplingMatlab(factor=2), SHAPE, "PhysicsOperator"),
    "Upsampling": (lambda: P.Upsampling((3, 16, 16), filter="bilinear", factor=2), SHAPE, "PhysicsOperator"),
    "SpaceVaryingBlur": (
        lambda: P.SpaceVaryingBlur(filters=draw(1, 1, 2, 3, 3), multipliers=draw(1, 1, 2, 8, 8)),
        SHAPE,
        "PhysicsOperator",
    ),
    "Decolorize": (lambda: P.Decolorize(), SHAPE, "Grayscale"),
    "Decolorize, five channels": (lambda: P.Decolorize(channels=5, srf="flat"), (5, 8, 8), "Grayscale"),
    "MRI": (lambda: P.MRI(mask=binary(8, 8), img_size=(8, 8)), None, "PhysicsSVD"),
    "MRI, a mask for each image": (lambda: P.MRI(mask=binary(2, 1, 8, 8), img_size=(8, 8)), None, "PhysicsSVD"),
    "DynamicMRI": (lambda: P.DynamicMRI(mask=binary(1, 1, 3, 8, 8), img_size=(8, 8)), None, "PhysicsSVD"),
    "SequentialMRI": (
        lambda: P.SequentialMRI(mask=binary(1, 1, 3, 8, 8), img_size=(8, 8)),
        (2, 8, 8),
        "PhysicsOperator",
    ),
    "MultiCoilMRI": (
        lambda: P.MultiCoilMRI(
            mask=binary(8, 8), coil_maps=torch.complex(draw(1, 2, 8, 8), draw(1, 2, 8, 8, seed=4)), img_size=(8, 8)
        ),
        (2, 8, 8),
        "PhysicsOperator",
    ),
    "SinglePixelCamera": (lambda: P.SinglePixelCamera(20, SHAPE), None, "PhysicsSVD"),
    "SinglePixelCamera, slow": (lambda: P.SinglePixelCamera(20, SHAPE, fast=False), None, "PhysicsSVD"),
    "CompressedSensing": (lambda: P.CompressedSensing(20, (1, 8, 8)), (1, 8, 8), "PhysicsOperator"),
    "Pansharpen": (lambda: P.Pansharpen(SHAPE, factor=2), None, "PhysicsOperator"),
    "StackedLinearPhysics": (
        lambda: P.stack(P.Inpainting(SHAPE, mask=0.5), P.Blur(blur())),
        SHAPE,
        "PhysicsOperator",
    ),
    "ComposedLinearPhysics": (
        lambda: P.Inpainting(SHAPE, mask=0.5) * P.BlurFFT(SHAPE, filter=blur()),
        SHAPE,
        "PhysicsOperator",
    ),
    "TiledSpaceVaryingBlur": (tiled, SHAPE, "PhysicsOperator"),
    "StructuredRandom": (lambda: P.StructuredRandom((1, 8, 8), (1, 8, 8)), None, "PhysicsOperator"),
    "PhysicsCropper": (
        lambda: P.PhysicsCropper(P.Blur(blur(), padding="circular"), (2, 1)),
        SHAPE,
        "PhysicsOperator",
    ),
    "VirtualLinearPhysics": (shifted, SHAPE, "PhysicsOperator"),
    "LinearPhysicsMultiScaler": (
        lambda: P.LinearPhysicsMultiScaler(P.Decolorize(), SHAPE, factors=(2,)),
        SHAPE,
        "PhysicsOperator",
    ),
    "BlurMultiScaler": (
        lambda: P.BlurMultiScaler(P.Blur(blur(), padding="circular"), SHAPE, factors=(2,)),
        SHAPE,
        "PhysicsOperator",
    ),
    "BlurFFTMultiScaler": (
        lambda: P.BlurFFTMultiScaler(P.BlurFFT(SHAPE, filter=blur()), SHAPE, factors=(2,)),
        SHAPE,
        "PhysicsOperator",
    ),
    "InpaintingMultiScaler": (
        lambda: P.InpaintingMultiScaler(P.Inpainting(SHAPE, mask=binary(*SHAPE)), SHAPE, factors=(2,)),
        SHAPE,
        "PhysicsOperator",
    ),
    "Tomography": (lambda: P.Tomography(angles=6, img_width=8), (1, 8, 8), "PhysicsOperator"),
    "HyperSpectralUnmixing": (lambda: P.HyperSpectralUnmixing(M=draw(3, 6)), SHAPE, "PhysicsOperator"),
    "CompressiveSpectralImaging": (lambda: P.CompressiveSpectralImaging(SHAPE), None, "PhysicsOperator"),
    "DecomposablePhysics, complex": (lambda: Fourier(mask=spectrum), SHAPE, "PhysicsSVD"),
    "LinearPhysics, no adjoint": (lambda: P.LinearPhysics(A=lambda x: x.cumsum(-1)), SHAPE, "PhysicsOperator"),
    "LinearPhysics, a wrong adjoint": (WrongAdjoint, SHAPE, "PhysicsOperator"),
    "LinearPhysics, one image": (OneImage, SHAPE, "PhysicsOperator"),
}
"""Physics -> how it is made, the shape of an image where it has to be told, and the class that it becomes."""
for padding in PADDINGS:
    exact = FourierBlur if padding == "circular" else "CanvasBlur"
    for fft in (False, True):
        ROWS[f"Blur, {padding}{', fft' * fft}"] = (
            lambda padding=padding, fft=fft: P.Blur(blur(), padding=padding, use_fft=fft),
            SHAPE,
            exact,
        )
    ROWS[f"Blur, {padding}, a column times a row"] = (
        lambda padding=padding: P.Blur(column_times_row(), padding=padding),
        SHAPE,
        FourierBlur if padding == "circular" else Separable,
    )

NEEDS_MORE = {
    "Haze": "is not linear",
    "NonCartesianMRI": "needs mri-nufft",
    "PtychographyLinearOperator": "takes complex images",
    "PET": "needs parallelproj",
    "RadioInterferometry": "needs torchkbnufft",
    "TomographyWithAstra": "needs astra",
    "UltrasoundPlaneWave": "takes seconds to be made",
}


@pytest.fixture(autouse=True)
def _same_randomness():
    torch.manual_seed(0)


def images(operator, dtype=torch.float32):
    return draw(operator.batch or 2, *operator.shape, seed=3, dtype=dtype)


def measured(physics, operator, shape, x):
    """What the physics, with numbers in the dtype of x, makes of every image."""
    physics = converted(physics, x.dtype, x.device)
    seen = x.reshape(len(x), *(shape or shape_of(physics)))
    parts = [seen] if operator.batch else seen.split(1)
    return torch.cat([pack(physics.A(part)) for part in parts])


@pytest.mark.parametrize("name", ROWS)
def test_a_physics_is_the_operator_that_it_is_called(name):
    """In float32 and float64: H and H^T to rounding, and the laws of H+ and P where they are exact."""
    make, shape, member = ROWS[name]
    physics = make()
    operator = deepinv_operator(physics, shape)
    assert isinstance(operator, member) if isinstance(member, type) else type(operator).__name__ == member
    assert operator.batch == (2 if "each image" in name else None)
    single = not any(part.dtype == torch.float64 for part in physics.buffers())
    for dtype in (torch.float32, torch.float64):
        rounding = (
            3e-6 if dtype == torch.float32 else 2e-7 if single else 1e-12
        )  # A float32 filter is no exact product.
        x = images(operator, dtype)
        y = measured(physics, operator, shape, x)
        assert y.dtype == dtype
        assert relative_error(operator.forward(x), y) < rounding
        z = draw(*y.shape, seed=5, dtype=dtype)
        inner = (y * z).double().sum(), (x * operator.adjoint(z)).double().sum()
        assert abs(float(inner[0] - inner[1])) < 3 * rounding * float(y.double().norm() * z.double().norm())
    if operator.kind != "krylov":
        p = operator.project(x)
        assert relative_error(operator.pinv(y), p) < 1e-6
        assert relative_error(operator.project(p), p) < 1e-6
        other = images(operator, dtype).flip(0, -1)
        inner = float((p * other).sum()), float((x * operator.project(other)).sum())
        assert abs(inner[0] - inner[1]) < 1e-5 * float(x.norm()) ** 2


def test_every_linear_physics_that_deepinv_exports_is_tried():
    exported = {name for name in dir(P) if isinstance(getattr(P, name), type)}
    linear = {name for name in exported if issubclass(getattr(P, name), P.LinearPhysics)}
    tried = {kind.__name__ for make, *_ in ROWS.values() for kind in type(make()).__mro__}
    assert not linear - tried - set(NEEDS_MORE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (P.RandomPhaseRetrieval(20, (1, 8, 8)), (1, 8, 8)),
        lambda: (P.Haze(), SHAPE),
        lambda: (P.Physics(A=lambda x: x.clamp(0, 1)), SHAPE),
        lambda: (P.Physics(A=lambda x: x + 1), SHAPE),
    ],
    ids=["phase", "haze", "clamp", "offset"],
)
def test_a_physics_that_is_not_linear_is_refused_by_name(make):
    physics, shape = make()
    with pytest.raises(ValueError, match=type(physics).__name__):
        deepinv_operator(physics, shape)


def test_arguments_of_deepinv_operator():
    for given, error, words in (
        ({"physics": object()}, TypeError, "physics: must be a deepinv physics"),
        ({"physics": P.Denoising()}, ValueError, "shape: must be given for Denoising"),
        ({"physics": P.Denoising(), "shape": SHAPE, "dtype": torch.float16}, TypeError, "dtype: must be"),
        ({"physics": P.Inpainting(SHAPE, mask=0.5), "shape": (3, 9, 9)}, ValueError, "shape: must be that of one"),
    ):
        with pytest.raises(error, match=words):
            deepinv_operator(**given)
    operator = deepinv_operator(P.DownsamplingMatlab(factor=2), SHAPE, iterations=3, tolerance=0.5)
    assert (operator.iterations, operator.tolerance) == (3, 0.5)
    assert deepinv_operator(P.BlurFFT(SHAPE, filter=blur()), dtype=torch.float64, device="cpu").shape == SHAPE


def test_the_physics_is_left_as_it_was():
    """A copy in another dtype shares nothing that is changed; ``Module.to`` would have dropped the phase."""
    physics = P.stack(P.BlurFFT(SHAPE, filter=blur(1, 3)), P.Blur(torch.nn.Parameter(blur())))
    before = {id(part): (part.dtype, part.clone()) for inner in physics.physics_list for part in inner.buffers()}
    operator = deepinv_operator(physics, SHAPE)
    x = images(operator, torch.float64)
    assert not operator.forward(x).requires_grad
    assert relative_error(operator.forward(x), operator.forward(x.float()).double()) < 1e-6
    for inner in physics.physics_list:
        for part in inner.buffers():
            dtype, value = before[id(part)]
            assert part.dtype == dtype
            assert torch.equal(part, value)


@pytest.mark.parametrize("name", ["Inpainting, a mask for each image", "Blur, replicate, each image",
                                  "MRI, a mask for each image", "Blur each image krylov"])  # fmt: skip
def test_images_keep_their_own_part_when_they_are_repeated_or_taken(name):
    if name in ROWS:
        make, shape, _ = ROWS[name]
    else:
        make, shape = (lambda: P.Downsampling(SHAPE, filter=blur(2), factor=2, padding="valid")), None
    operator = deepinv_operator(make(), shape)
    x = images(operator)
    y = operator.forward(x)
    assert relative_error(operator.repeat(2).forward(torch.cat([x, x.flip(0)])[[0, 1, 3, 2]]), torch.cat([y, y])) < 1e-6
    for places in ([1], [1, 0], [1, 1, 0]):
        index = torch.tensor(places)
        assert relative_error(operator.take(index).forward(x[index]), y[index]) < 1e-6
        back = operator.take(index).adjoint(y[index])
        assert relative_error(back, operator.adjoint(y)[index]) < 1e-6
    with pytest.raises(ValueError, match="holds parts for 2 images, got 3"):
        operator.forward(torch.cat([x, x[:1]]))


def test_small_singular_values_are_in_h_and_are_not_inverted():
    """A wide Gaussian reaches 1e-9: H is complete, and H+ does not divide the rounding of y by that."""
    wide = P.functional.gaussian_blur(sigma=(1.5, 1.5))
    middle = wide.shape[-1] // 2
    wide = wide[..., middle - 4 : middle + 5, middle - 4 : middle + 5]
    shape, x = (1, 16, 16), draw(1, 1, 16, 16)
    for physics in (P.BlurFFT(shape, filter=wide), P.Blur(wide, padding="reflect"), P.Downsampling(shape, filter=wide)):
        operator = deepinv_operator(physics, shape)
        y = physics.A(x)
        assert relative_error(operator.forward(x), y) < 1e-6
        assert float((operator.pinv(y) - operator.project(x)).abs().max()) < 0.1
        assert float(operator.pinv(torch.full_like(y, 1e-7)).abs().max()) < 1e-2


# ------------------------------------------------------------------------------------ denoisers and reconstructors
@pytest.fixture(scope="module")
def prior():
    """Images in [-1, 1] whose pixels are alike over short distances, with means that differ."""
    row = torch.arange(8, dtype=torch.float64)
    near = 0.85 ** (row[:, None] - row).abs()
    channels = torch.full((3, 3), 0.6, dtype=torch.float64).fill_diagonal_(1.0)
    covariance = 0.09 * torch.kron(channels, torch.kron(near, near))
    return Gaussian(0.2 * torch.sin(torch.arange(192, dtype=torch.float64) / 20), covariance, SHAPE)


def scenes(prior, count=2):
    """Images of deepinv, in [0, 1] and in float32."""
    return (prior.sample(count, torch.Generator().manual_seed(0)).float().clamp(-1, 1) + 1) / 2


def test_the_range_of_deepinv_is_half_of_ours(prior):
    denoiser = prior.denoiser(VP())
    there = to_deepinv(denoiser)
    x, sigma = draw(2, *SHAPE, dtype=torch.float64), torch.tensor([0.1, 0.4], dtype=torch.float64)
    truth = (prior.denoise(2 * x - 1, torch.ones(2, dtype=torch.float64), 2 * sigma) + 1) / 2
    for given in (sigma, sigma.reshape(2, 1, 1, 1)):
        assert relative_error(there(x, given), truth) < 1e-9
    back = from_deepinv(there)
    one = torch.full((2,), 0.5, dtype=torch.float64)
    assert relative_error(back(2 * x - 1, 0.5), prior.denoise(2 * x - 1, torch.ones_like(one), one)) < 1e-9


def test_the_classes_are_those_of_deepinv():
    """They can be copied, pickled and moved as other modules."""
    denoiser = ccfast.load_prior("photo")
    for made, kind in (
        (to_deepinv(denoiser), deepinv.models.Denoiser),
        (DeepinvReconstructor(denoiser, SHAPE, solver=DDNM(), steps=2), deepinv.models.Reconstructor),
    ):
        assert isinstance(made, kind)
        assert len(list(made.parameters())) == len(list(denoiser.network.parameters()))
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.to("cpu").eval()):
            assert isinstance(other, kind)
            assert type(other) is type(made)
    assert isinstance(DeepinvReconstructor(denoiser, SHAPE), DeepinvReconstructor)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_reconstructor_is_our_sampler_in_the_other_range(prior, noise):
    """The physics of a call may be updated by it, and the shape is known by A_adjoint."""
    denoiser, x = prior.denoiser(VP()), scenes(prior).double()
    options = {"solver": DDNM(), "steps": 3, "start": 0.5}
    physics = P.Inpainting(SHAPE, mask=binary(*SHAPE), noise_model=P.GaussianNoise(noise))
    y, level = physics.A(x), 2 * float(physics.noise_model.sigma)
    ours = ccfast.Sampler(denoiser, Inpainting(binary(*SHAPE)), noise_std=level, **options)
    known = (ours(2 * y - physics.A(torch.ones_like(y)), seed=3) + 1) / 2
    got = DeepinvReconstructor(denoiser, **options)(y, physics, seed=3)
    assert got.dtype == torch.float64
    assert relative_error(got, known) < 1e-9
    told = DeepinvReconstructor(denoiser, SHAPE, noise_std=level, **options)
    assert relative_error(told(y, P.Inpainting(SHAPE, mask=binary(*SHAPE)), seed=3), known) < 1e-9
    other = P.Inpainting(SHAPE, mask=torch.ones(SHAPE), noise_model=P.GaussianNoise(0.5))
    updated = DeepinvReconstructor(denoiser, **options)(y, other, seed=3, mask=binary(1, *SHAPE), sigma=noise)
    assert relative_error(updated, known) < 1e-6


def test_every_image_has_its_own_sigma(prior):
    denoiser, x = prior.denoiser(VP()), scenes(prior)
    sigma = torch.tensor([0.02, 0.3])
    physics = P.BlurFFT(SHAPE, filter=blur(2), noise_model=P.GaussianNoise(sigma))
    y = physics(x)
    got = DeepinvReconstructor(denoiser, SHAPE, steps=3)(y, physics, seed=[5, 6])
    for k in range(2):
        alone = P.BlurFFT(SHAPE, filter=blur(2)[k : k + 1], noise_model=P.GaussianNoise(sigma[k]))
        one = DeepinvReconstructor(denoiser, SHAPE, steps=3)(y[k : k + 1], alone, seed=[5 + k])
        assert relative_error(got[k : k + 1], one) < 1e-5


KNOWN_NOISE = ("ZeroNoise", "GaussianNoise", "PoissonNoise", "PoissonGaussianNoise")
OTHER_NOISE = sorted(
    name
    for name in dir(P)
    if isinstance(getattr(P, name), type) and issubclass(getattr(P, name), P.NoiseModel) and name not in KNOWN_NOISE
)


@pytest.mark.parametrize("name", [*OTHER_NOISE, "a function", "a subclass", "inside a stack", "a sum of models"])
def test_other_noise_models_are_refused_by_name(prior, name):
    named = {
        "a function": (lambda x, **kwargs: x + 1, "function"),
        "a subclass": (type("Mine", (P.GaussianNoise,), {"forward": lambda self, x, **kwargs: 2 * x})(0.1), "Mine"),
        "inside a stack": (P.LaplaceNoise(0.1), "LaplaceNoise"),
        "a sum of models": (P.GaussianNoise(0.1) * P.PoissonNoise(0.1), "NoiseModel"),
    }
    model, word = named[name] if name in named else (getattr(P, name)(), name)
    physics = P.Inpainting(SHAPE, mask=0.5, noise_model=model)
    if name == "inside a stack":
        physics = P.stack(P.Denoising(P.GaussianNoise(0.1)), physics)
    y = physics.A(scenes(prior))
    with pytest.raises(ValueError, match=f"noise_model: must be .* got {word}"):
        DeepinvReconstructor(prior.denoiser(VP()), SHAPE, solver=DDNM())(y, physics)


def test_a_sensor_and_wrong_levels_are_refused(prior):
    model = DeepinvReconstructor(prior.denoiser(VP()), SHAPE, solver=DDNM())
    y = scenes(prior)
    for options, words in (
        ({"sensor_model": lambda x: x.clamp(0, 1)}, "sensor_model: must be the identity"),
        ({"noise_model": P.GaussianNoise(torch.tensor([0.1, 0.2, 0.3]))}, "sigma must be one number, or one for each"),
        ({"noise_model": P.GaussianNoise(-1.0)}, "sigma must be finite and >= 0"),
        ({"noise_model": P.PoissonNoise(torch.tensor([0.1, math.nan]))}, "gain must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            model(y, P.Inpainting(SHAPE, mask=torch.ones(SHAPE), **options))
    with pytest.raises(ValueError, match="shape: must be given for Physics"):
        DeepinvReconstructor(prior.denoiser(VP()), solver=DDNM())(y, P.Physics(A=lambda x: x[..., ::2]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: P.PoissonNoise(0.002),
        lambda: P.PoissonNoise(torch.tensor([0.001, 0.004])),
        lambda: P.PoissonNoise(0.002, normalize=False),
        lambda: P.PoissonGaussianNoise(0.002, 0.03),
    ],
    ids=["poisson", "gain of each image", "counts", "poisson and gaussian"],
)
def test_the_variance_of_poisson_noise_is_that_of_every_element(make):
    """On a ramp that is observed with weights of every element, against many draws."""
    x = torch.linspace(0.1, 0.9, 12).reshape(1, 1, 12, 1).expand(2, 1, 12, 12)
    weights = 0.2 + draw(1, 12, 12) * (draw(1, 12, 12, seed=1) < 0.7)
    physics = P.Inpainting((1, 12, 12), mask=weights, noise_model=make())
    gain = torch.as_tensor(physics.noise_model.gain).reshape(-1, 1, 1, 1)
    y = torch.stack([physics(x) for _ in range(400)])
    # What Inpainting observes, it multiplies with the weight a second time.
    unit = (1.0 if bool(getattr(physics.noise_model, "normalize", True)) else gain) / weights
    truth = (y * unit).var(0)
    reach = [physics.A(torch.ones_like(x))]
    found = [measured_parts(physics, [one / weights], reach)[0] for one in y[:20]]
    assert relative_error(torch.stack([part.variance for part in found]).mean(0), truth) < 0.15  # 400 draws of a ramp
    assert relative_error(found[0].y, y[0] * unit) < 1e-6


def test_few_counts_are_taken_for_the_mean_of_the_whole_measurement():
    """The estimate lies between the local mean and that of all, near the first where counts are many."""
    y = torch.cat([torch.full((1, 1, 12, 6), 0.2), torch.full((1, 1, 12, 6), 0.6)], -1)
    for gain, near in ((1e-5, 0.2), (10.0, 0.4)):
        physics = P.Denoising(P.PoissonNoise(gain))
        found = measured_parts(physics, [y], [torch.ones_like(y)])[0].variance / gain
        assert float(found[0, 0, 6, 1]) == pytest.approx(near, rel=0.02)


def test_noise_of_every_element_is_weighed_exactly():
    """A Poisson measurement of a mask is a SoftMask; of anything else it is known by H and H^T."""
    levels, mask = 0.05 + draw(2, *SHAPE, seed=7), binary(*SHAPE)
    operator, y = Inpainting(mask), draw(2, *SHAPE, seed=8)
    weighted, of_y, level = with_weights(operator, y * mask, levels)
    assert isinstance(weighted, SoftMask)
    assert weighted.batch == 2
    x = draw(2, *SHAPE, seed=9)
    assert relative_error(weighted.forward(x) * levels / level, operator.forward(x)) < 1e-6
    assert relative_error(of_y * levels / level, y * mask) < 1e-6
    fourier = FourierBlur(SHAPE, blur()[0, 0])
    general, _, level = with_weights(fourier, y, levels)
    assert relative_error(general.forward(x) * levels / level, fourier.forward(x)) < 1e-6
    assert relative_error(general.take(torch.tensor([1])).forward(x[1:]), general.forward(x)[1:]) < 1e-6
    assert relative_error(general.repeat(2).forward(x.repeat(2, 1, 1, 1)), general.forward(x).repeat(2, 1, 1, 1)) < 1e-6
    assert alike(torch.full((2, 3), 0.5)) == [0.5, 0.5]
    assert alike(levels) is None


# ------------------------------------------------------------------------------------ whole runs on the bundled prior
@pytest.fixture(scope="module")
def photo():
    return ccfast.load_prior("photo")


@pytest.fixture(scope="module")
def scene():
    """Two images (3, 32, 32) of a disc before a ramp."""
    row, column = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    disc = (((row - 0.4) ** 2 + (column - 0.6) ** 2) < 0.06).float()
    ramp = torch.stack([0.3 + 0.4 * row, 0.5 - 0.3 * column, 0.2 + 0.3 * row * column])
    x = ramp * (1 - disc) + disc * torch.tensor([0.8, 0.6, 0.3]).reshape(3, 1, 1)
    return torch.stack([x, x.flip(2)])


def psnr(restored, x):
    return -10 * math.log10(float((restored.float() - x).square().mean()))


def theirs(name, denoiser, y, physics, steps):
    """The samplers of deepinv's demonstrations, with the parameters that these give them."""
    with torch.no_grad():
        if name == "DDRM":
            return deepinv.sampling.DDRM(denoiser, etab=1.0, sigmas=torch.linspace(1, 0, steps).numpy())(y, physics)
        if name == "DiffPIR":
            sampler = deepinv.sampling.DiffPIR(
                denoiser, deepinv.optim.data_fidelity.L2(), sigma=12.75 / 255, max_iter=steps, zeta=0.3, lambda_=7.0
            )
            return sampler(y, physics)
        sampler = deepinv.sampling.DPS(
            denoiser, schedule="vp", num_steps=steps, weight=20.0, guidance="annealed", alpha=0.5, dtype=torch.float64
        )
        return sampler(y.clone(), physics, seed=123)


def box():
    mask = torch.ones(1, 3, 32, 32)
    mask[..., 6:12, 6:12] = 0
    mask[..., 10:16, 6:12] = 0
    return mask


@pytest.mark.parametrize(
    ("name", "make", "steps"),
    [
        ("DDRM", lambda: P.Inpainting((3, 32, 32), mask=0.5, noise_model=P.GaussianNoise(0.1)), 10),
        ("DiffPIR", lambda: P.Inpainting((3, 32, 32), mask=box(), noise_model=P.GaussianNoise(12.75 / 255)), 20),
        ("DPS", lambda: P.Inpainting((3, 32, 32), mask=0.1, noise_model=P.GaussianNoise(12.75 / 255)), 12),
    ],
    ids=["DDRM", "DiffPIR", "DPS"],
)
def test_the_demonstrations_of_deepinv_with_our_sampler_in_place_of_theirs(photo, scene, name, make, steps):
    """The result is at least as good after as many evaluations of the network."""
    physics = make()
    y = physics(scene)
    calls = []
    denoiser = to_deepinv(photo)
    counting = denoiser.denoise.register_forward_hook(lambda *_: calls.append(1))
    there = psnr(theirs(name, denoiser, y, physics, steps), scene)
    counting.remove()
    ours = psnr(DeepinvReconstructor(photo, steps=min(steps, len(calls)))(y, physics, seed=0), scene)
    assert ours >= there


@pytest.mark.parametrize("name", ["gaussian", "wide gaussian", "motion", "any"])
def test_without_noise_a_blur_is_inverted_as_well_as_rounding_allows(photo, scene, name):
    """A_dagger inverts every singular value above 1e-5. The result is that, or better where little is left of y."""
    kernels = {
        "gaussian": P.functional.gaussian_blur(sigma=(1.0, 1.0)),
        "wide gaussian": P.functional.gaussian_blur(sigma=(2.0, 2.0)),
        "motion": torch.eye(9)[None, None] / 9,
        "any": blur(height=5, width=6),
    }
    physics = P.BlurFFT((3, 32, 32), filter=kernels[name])
    y = physics.A(scene)
    restored = DeepinvReconstructor(photo)(y, physics, seed=0)
    assert psnr(restored, scene) > psnr(physics.A_dagger(y), scene) - 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda noise: P.Denoising(noise),
        lambda noise: P.BlurFFT((3, 32, 32), filter=torch.eye(5)[None, None] / 5, noise_model=noise),
        lambda noise: P.Blur(blur(height=5, width=6), padding="replicate", noise_model=noise),
        lambda noise: P.Downsampling((3, 32, 32), filter="bicubic", factor=2, noise_model=noise),
        lambda noise: P.Pansharpen((3, 32, 32), factor=4, noise_color=noise, noise_gray=P.GaussianNoise(0.02)),
    ],
    ids=["denoising", "fourier", "blur by H and H^T", "downsampling", "pansharpen"],
)
@pytest.mark.parametrize(
    "noise",
    [lambda: P.GaussianNoise(torch.tensor([0.05, 0.1])), lambda: P.PoissonNoise(0.02, clip_positive=True)],
    ids=["gaussian", "poisson"],
)
def test_a_noisy_measurement_is_restored_without_further_options(photo, scene, make, noise):
    """The image is better than that without a prior, on every kind of operator and by singular values or without."""
    physics = make(noise())
    y = physics(scene)
    restored = DeepinvReconstructor(photo)(y, physics, seed=0)
    plain = psnr(physics.A_dagger(y), scene)
    if isinstance(y, torch.Tensor) and y.shape == scene.shape:
        plain = max(plain, psnr(y, scene))
    assert restored.shape == scene.shape
    assert psnr(restored, scene) > plain + 1.0


def test_frames_of_a_dynamic_scan_are_denoised_one_by_one(prior):
    network = Gaussian(torch.zeros(128), torch.eye(128), (2, 8, 8)).denoiser(VP())
    physics = P.DynamicMRI(mask=binary(1, 1, 3, 8, 8), img_size=(8, 8), noise_model=P.GaussianNoise(0.1))
    x = draw(2, 2, 3, 8, 8)
    y = physics.A(x)
    got = DeepinvReconstructor(network, (2, 3, 8, 8), solver=DDNM(eta=0.0), steps=3)(y, physics, seed=0)
    assert got.shape == x.shape
    operator = deepinv_operator(physics, (2, 3, 8, 8))
    mean = Gaussian(torch.zeros(384), torch.eye(384), operator.shape).denoiser(VP())
    sampler = ccfast.Sampler(mean, operator, DDNM(eta=0.0), steps=3, noise_std=0.2)
    flat = sampler(2 * y - operator.forward(torch.ones(2, 6, 8, 8)), seed=0)
    assert relative_error(got, (flat.reshape(x.shape) + 1) / 2) < 1e-5


def test_a_stack_weighs_its_parts_by_their_noise(prior):
    """Where one part is nearly free of noise, and sees all, the other does not matter."""
    clean, noisy = P.Denoising(P.GaussianNoise(0.005)), P.Blur(blur(), noise_model=P.GaussianNoise(0.5))
    x = scenes(prior)
    physics = P.stack(clean, noisy)
    y = physics(x)
    restored = DeepinvReconstructor(prior.denoiser(VP()), SHAPE, steps=4)(y, physics, seed=0)
    assert float((restored - x).square().mean().sqrt()) < 0.02
