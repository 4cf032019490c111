"""Who is at the other end of a Unix socket, as the system knows it and not as the peer says."""

from __future__ import annotations

import os
import socket
import struct
import sys

_LOCAL_PEERCRED = 1  # of the level SOL_LOCAL, which is 0: neither is in Python's module
_XUCRED = struct.Struct("=IIhxx16I")  # cr_version, cr_uid, cr_ngroups, padding, cr_groups


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end; None where the system cannot tell.

    :raises OSError: if it can, and does not.
    """
    if hasattr(socket, "SO_PEERCRED"):  # Linux: pid, uid, gid
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    if sys.platform == "darwin":
        return _uid_of(connection.getsockopt(0, _LOCAL_PEERCRED, _XUCRED.size))
    return None


def _uid_of(xucred: bytes) -> int:
    """The user in macOS's ``struct xucred``.

    :raises OSError: if it is another version of it, or cut short.
    """
    if len(xucred) < 8:
        raise OSError(f"the system named the socket's peer in {len(xucred)} bytes")
    version, uid = struct.unpack_from("=II", xucred)
    if version != 0:
        raise OSError(f"the system named the socket's peer in version {version} of its format, not 0")
    return int(uid)


def is_own(connection: socket.socket) -> bool:
    """Whether the other end is this user's, and nobody else's: not even root's.

    Where the system cannot tell, the mode of the socket's folder stands alone.
    """
    try:
        return peer_uid(connection) in (None, os.getuid())
    except OSError:
        return False
