"""Where each joint was, as a table: one line a frame, world metres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bodyfit.export.motion import motion_of

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

FILE_NAME = "joints.csv"


def joint_csv_text(result: FitResult) -> str:
    """frame_index, timestamp_s, then <joint>_x_m, <joint>_y_m, <joint>_z_m of every joint; z is up.

    Lines are the frames that were fitted, in the order of time; nothing is interpolated.

    Raises:
        InputError: see `bodyfit.export.motion.motion_of`.
    """
    motion = motion_of(result)
    columns = [f"{name}_{axis}_m" for name in motion.joint_names for axis in "xyz"]
    lines = [",".join(["frame_index", "timestamp_s", *columns])]
    rows = motion.joints_world().reshape(len(motion), -1)
    for index, seconds, row in zip(motion.frame_indices, motion.timestamps_s, rows, strict=True):
        lines.append(f"{index},{seconds:.6f}," + ",".join([f"{x:.6f}" for x in row.tolist()]))
    return "\n".join(lines) + "\n"
