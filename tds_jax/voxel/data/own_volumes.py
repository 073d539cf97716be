"""Pairs of volumes that a source of one's own gives, as if they lay in files."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tds_jax import own
from tds_jax.errors import UserError
from tds_jax.voxel.data.volumes import (
    KINDS,
    Frame,
    Place,
    Scene,
    Volume,
    VolumeFiles,
    checked,
    sparse,
)

SETTING = "data.source"
SCENE = "scene"  # of all pairs of a source that tells none


class OwnVolumes(VolumeFiles):
    """`VolumeFiles` whose places are numbers of a source.

    name: 'package.module:Name' of what makes the source, of those of `offered` that it names. It
    has a length and gives pairs by number, in the order of time: mappings with 'radar' and
    'target', each a dense array (X, Y, Z, 4), or a mapping of coords, features and shape as in
    .npz files. `scene(number)`, if it has that, says which scene a pair is of.
    """

    def __init__(self, name: str, offered: Mapping[str, Any], *cache: Any) -> None:
        super().__init__(*cache)
        self.name, self._given = name, own.Given(SETTING, name, offered)

    def scenes(self) -> list[Scene]:
        """Each with its frames in the order of the source."""
        frames: dict[str, list[Frame]] = {}
        scene_of = getattr(self._given.source, SCENE, lambda number: SCENE)
        for number in range(len(self._given.source)):
            scene, place = str(scene_of(number)), Place(self.name, number)
            frames.setdefault(scene, []).append(Frame(scene, f"{number:06d}", place, place))
        return [Scene(name, tuple(found), ()) for name, found in frames.items()]

    def read(self, place: Place, kind: str) -> Volume:
        """See `VolumeFiles.read`."""
        pair = self._given.item(place.start)
        where = f"{self.name}[{place.start}]"
        if kind not in pair:
            raise UserError(f"{where} has {', '.join(pair)}; give {' and '.join(KINDS)}")
        values = pair[kind]
        if not isinstance(values, Mapping):
            return sparse(f"{where}: {kind}", np.asarray(values))
        missing = {"coords", "features", "shape"} - set(values)
        if missing:
            raise UserError(f"{where}: {kind} lacks {sorted(missing)[0]!r}")
        coords, features, shape = (np.asarray(values[n]) for n in ("coords", "features", "shape"))
        return checked(f"{where}: {kind}", coords, features, shape)

    def contents(self, places: Sequence[Place], kinds: Sequence[str]) -> str:
        """Changes with any value of volumes of these kinds, all read, and with their order."""
        digest = hashlib.blake2b(digest_size=8)
        for place, kind in itertools.product(places, kinds):
            volume = self.read(place, kind)
            for part in (volume.coords, volume.features, np.array(volume.shape)):
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()
