"""The places that coord needs or leaves traces in: /proc, the runtime directory, shared memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coord.errors import CoordError
from coord.finding import fail, ok, warn
from coord.settings import runtime_dir
from workers.mounts import mount_of
from workers.proc import read_stat

if TYPE_CHECKING:
    from coord.finding import Finding

FREE_MIN_BYTES = 16 << 20
SHM = "/dev/shm"  # noqa: S108  # looked at, not written to
FAR = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "fuse.sshfs"})
SEES_ALL = "Mount it without hidepid, or let coord's user in with gid="


def proc() -> Finding:
    """Tell whether /proc shows what coord has to find: this pid namespace, and processes of other users."""
    mount = mount_of("/proc")
    if mount is None or mount.kind != "proc":
        return fail("/proc is not mounted", "Mount it: mount -t proc proc /proc")
    if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115  # it is compared as a text
        return fail(
            "/proc shows another pid namespace than this process's own",
            "Mount it in the namespace: unshare --mount-proc, or mount -t proc proc /proc",
        )
    hidden = next((option.partition("=")[2] for option in mount.options if option.startswith("hidepid=")), "off")
    if read_stat(1) is None:
        return warn(
            f"hidepid={hidden} hides other users' processes: a child that becomes another user is only seen gone, "
            "not found or signalled",
            SEES_ALL,
        )
    lists = Path(f"/proc/self/task/{os.getpid()}/children").exists()  # CONFIG_PROC_CHILDREN
    how = "the kernel lists children" if lists else "children are found by looking at all of them"
    return ok(f"shows all processes{'' if hidden == 'off' else f' in spite of hidepid={hidden}'}; {how}")


def runtime_directory() -> Finding:
    """Tell whether this user's own directory can be made, written and trusted."""
    try:
        folder = runtime_dir()
        with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as file:
            file.write(b"written")
    except CoordError as error:
        return fail(error.message, error.hint)
    except OSError as error:
        return fail(f"{folder} can't be written to: {error.strerror}", "Set COORD_RUNTIME_DIR to a place that can")
    mount = mount_of(str(folder.resolve()))
    kind = mount.kind if mount else "?"
    free = _free_bytes(folder)
    found = f"{folder}: ours, mode {folder.stat().st_mode & 0o777:o}, on {kind}, {_size(free)} free"
    if kind in FAR:
        return warn(f"{found}: sockets and locks work badly there", "Set COORD_RUNTIME_DIR to a place on this host")
    if free < FREE_MIN_BYTES:
        return warn(found, "Make room there, or set COORD_RUNTIME_DIR")
    return ok(found)


def shared_memory() -> Finding:
    """Tell how much shared memory is left: what killed programs leave there stays until somebody removes it."""
    if not os.path.isdir(SHM):  # noqa: PTH112
        return warn(f"{SHM} is not there: programs that share memory can't start", "Mount it: a tmpfs with mode 1777")
    free, size = _free_bytes(Path(SHM)), _size_bytes(Path(SHM))
    found = f"{SHM}: {_size(free)} of {_size(size)} free"
    if free < FREE_MIN_BYTES:
        return warn(
            found, f"Look at what killed programs left in {SHM}, or enlarge it: docker --shm-size, compose: shm_size"
        )
    return ok(found)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _size_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
