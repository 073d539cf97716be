"""Public data sets, told by the folders their clouds come in."""

from pathlib import Path
from typing import Any

# What `prepare` is to be told of each; a folder named for a calibration holds a file per frame.
KNOWN: dict[str, dict[str, Any]] = {
    "NTU4DRadLM": {
        "radar": "radar_pcl",
        "radar_layout": "ntu_radar",
        "lidar": "livox_lidar",
        "lidar_layout": "ntu_lidar",
    },
    "View-of-Delft": {
        "radar": "radar/training/velodyne",
        "radar_layout": "vod_radar",
        "radar_calibration": "radar/training/calib",
        "lidar": "lidar/training/velodyne",
        "lidar_layout": "vod_lidar",
        "lidar_calibration": "lidar/training/calib",
    },
    "KITTI": {"radar": "", "lidar": "training/velodyne", "lidar_layout": "kitti"},
}


def data_set_of(folder: Path) -> str:
    """The first of KNOWN whose folders of clouds are in `folder`, or in a folder in it; or ''."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for name, settings in KNOWN.items():
        clouds = [settings[sensor] for sensor in ("radar", "lidar") if settings[sensor]]
        if any(all((place / n).is_dir() for n in clouds) for place in (folder, *inside)):
            return name
    return ""
