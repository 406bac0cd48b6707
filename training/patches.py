"""The photographs that the bundled priors are trained on, and random patches of them.

The photographs are the ones in four Debian packages of desktop wallpapers (drawings and renderings left out).
``fetch`` downloads and unpacks the packages; nothing of them is kept in this repository. The pictures that come with
scikit-image are held out: they are never read here.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "Patches", "Photograph", "fetch", "parse_with_photographs"]


class Photograph(NamedTuple):
    """A file of a Debian package, its author and the SPDX name of its licence."""

    package: str
    path: str
    author: str
    licence: str


def _table(package: str, folder: str, licence: str, rows: str) -> list[Photograph]:
    """The photographs of one package; a line of ``rows`` is file | author | licence, the last only where it differs."""
    photographs = []
    for line in filter(None, map(str.strip, rows.splitlines())):
        name, author, *own = (field.strip() for field in line.split("|"))
        photographs.append(Photograph(package, f"{folder}/{name}", author, own[0] if own else licence))
    return photographs


PHOTOGRAPHS: list[Photograph] = [
    *_table(
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds",
        "CC-BY-4.0",
        """
        Bridge_by_Sander_Klootwijk.jpg       | Sander Klootwijk     | CC-BY-SA-4.0
        Dragonfly_by_Bolly.jpg               | Bolly                | CC-BY-SA-4.0
        Picture_0B_by_freespace.jpg          | Trevor "Freespace"
        Picture_1A_by_freespace.jpg          | Trevor "Freespace"
        Wine_by_Jakkub_Mede.jpg              | Jakub Mede
        aitzgorri_by_Aitzol_Berasategi.jpg   | Aitzol Berasategi
        free_by_Peter_Nerlich.jpg            | Peter Nerlich        | CC-BY-SA-4.0
        friends_by_Aitzol_Berasategi.jpg     | Aitzol Berasategi
        greentock_by_Peter_Nerlich.jpg       | Peter Nerlich        | CC-BY-SA-4.0
        life_by_Aitzol_Berasategi.jpg        | Aitzol Berasategi
        picosdeeuropa_by_Aitzol_Berasategi.jpg | Aitzol Berasategi
        seeding_by_Clements_Engelhardt.jpg   | Clemens Engelhardt   | CC0-1.0
        sunset_by_Aitzol_Berasategi.jpg      | Aitzol Berasategi
        """,
    ),
    *_table(
        "lomiri-wallpapers-20.04",
        "usr/share/backgrounds",
        "CC-BY-SA-3.0",
        "Kleiber_by_Lukas_Baubkus.jpg | Lukas Baubkus",
    ),
    *_table(
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature",
        "GPL-2+",
        """
        Aqua.jpg         | Charles Barbin
        Blinds.jpg       | Lennart Poettering, Andrea Cimitan
        Dune.jpg         | Marco Cogoni, Hylke Bons
        FreshFlower.jpg  | Jens Ansorg
        Garden.jpg       | Charles Barbin
        GreenMeadow.jpg  | Timothy Schellhase, Lapo Calamandrei
        LadyBird.jpg     | Charles Barbin
        RainDrops.jpg    | blackcombwhistler07
        Storm.jpg        | Sergey Nazarov
        TwoWings.jpg     | Charles Barbin, Hylke Bons
        Wood.jpg         | Jean-François Fortin Tam
        YellowFlower.jpg | Charles Barbin
        """,
    ),
    *_table(
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers",
        "LGPL-3.0",
        """
        BytheWater/contents/images/2560x1600.jpg   | Maciej Wiklo
        ColdRipple/contents/images/2560x1600.jpg   | Risto Saukonpää
        ColorfulCups/contents/images/2560x1600.jpg | Dmitri Popov
        DarkestHour/contents/images/2560x1600.jpg  | Risto Saukonpää
        EveningGlow/contents/images/2560x1600.jpg  | Ian Hex
        FallenLeaf/contents/images/2560x1600.jpg   | Martin Klapetek
        Grey/contents/images/2560x1600.jpg         | Sigi Sagi
        Kite/contents/images/2560x1600.jpg         | Risto Saukonpää
        OneStandsOut/contents/images/2560x1600.jpg | Risto Saukonpää
        Path/contents/images/2560x1600.jpg         | Risto Saukonpää
        summer_1am/contents/images/2560x1600.jpg   | Risto Saukonpää
        """,
    ),
]


def fetch(folder: Path) -> None:
    """Download the Debian packages into ``folder`` and unpack each into a sub-folder of its own name.

    It needs ``apt-get`` and ``dpkg``. Packages that are already unpacked are left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in sorted({photograph.package for photograph in PHOTOGRAPHS}):
        if (folder / package).is_dir():
            continue
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        archive = max(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive.name, package], cwd=folder, check=True)


def parse_with_photographs(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of the command line, with ``photos``, a folder into which the photographs are fetched if absent."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of the unpacked packages; fetched if absent")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        fetch(arguments.photos)
    return arguments


def load_pyramid(path: Path, widths: tuple[int, ...] = (1600, 1000, 640, 420)) -> list[np.ndarray]:
    """Reduced copies of a photograph, uint8 (H, W, 3), whose longer sides have the ``widths`` in pixels, largest first.

    Wallpapers are large and smooth, while their reduced copies are as sharp as an ordinary small picture.
    """
    from PIL import Image

    with Image.open(path) as picture:
        picture = picture.convert("RGB")
        levels = []
        for width in widths:
            scale = width / max(picture.size)
            if scale <= 1:
                size = (round(picture.width * scale), round(picture.height * scale))
                levels.append(np.asarray(picture.resize(size, Image.Resampling.LANCZOS)))
    return levels


class Patches:
    """Endless random patches in [-1, 1], float32 (batch, 3, size, size).

    Every patch has a random photograph, reduction, place, flip and quarter turn. One in four has its colour channels in
    another order, and one in two another contrast, so that a few dozen photographs go further.

    Args:
        folder: the folder that ``fetch`` unpacked the packages into.
        seed: the seed of all choices.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        missing = [p.path for p in PHOTOGRAPHS if not (folder / p.package / p.path).is_file()]
        if missing:
            raise FileNotFoundError(f"photos: {len(missing)} photographs are not in {folder}, first {missing[0]}")
        self.levels = [level for p in PHOTOGRAPHS for level in load_pyramid(folder / p.package / p.path)]
        self.generator = np.random.default_rng(seed)

    def _one(self, size: int) -> np.ndarray:
        pick = self.generator
        level = self.levels[pick.integers(len(self.levels))]
        top, left = (int(pick.integers(n - size + 1)) for n in level.shape[:2])
        patch = level[top : top + size, left : left + size].astype(np.float32) / 127.5 - 1.0
        patch = np.rot90(patch, int(pick.integers(4)))
        if pick.random() < 0.5:
            patch = patch[:, ::-1]
        if pick.random() < 0.25:
            patch = patch[:, :, pick.permutation(3)]
        if pick.random() < 0.5:
            centre = pick.uniform(-0.3, 0.3)
            patch = np.clip(centre + pick.uniform(0.7, 1.25) * (patch - centre), -1, 1)
        return np.ascontiguousarray(patch.transpose(2, 0, 1))

    def batch(self, count: int, size: int) -> Tensor:
        return torch.from_numpy(np.stack([self._one(size) for _ in range(count)]))
