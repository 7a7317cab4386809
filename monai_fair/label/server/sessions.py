"""Images that a client lends for a while: kept under ids that are no paths, and never unpacked."""

import time
import uuid
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import Sessions

from monai_fair.errors import LabelError
from monai_fair.label.requests import is_id


class CheckedSessions(Sessions):
    """MONAI Label's sessions, but for what would lead outside their folder, or stop a server from starting."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """Return a session, or ``None`` where there is none, or one that a killed server has begun."""
        if not is_id(session_id):
            return None
        try:
            return super().get_session(session_id, update_ts, fetch_cache)
        except ValueError:  # a record that was cut short
            return None

    def remove_session(self, session_id: str) -> None:
        """Remove a session."""
        if is_id(session_id):
            super().remove_session(session_id)

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, Any]:
        """Keep an image.

        Raises:
            LabelError: if it is an archive to unpack: members of one may lie outside the folder.
        """
        if uncompress:
            raise LabelError("session: expected an image file, got an archive to unpack; send the image itself")
        found: tuple[str, Any] = super().add_session(data_file, expiry, False, session_id)
        return found

    def remove_expired(self) -> int:
        """Remove what has expired, and after that time what a killed server has left half done.

        A session without a record may be one that is being written; what is not named as one is nobody's to remove.
        """
        store, count = Path(self.store_path), 0
        for folder in store.iterdir() if store.is_dir() else ():
            if _is_uuid(folder.name) and folder.is_dir() and self._end(folder) < time.time():
                self.remove_session(folder.name)
                count += 1
        return count

    def _end(self, folder: Path) -> float:
        """Return when a session expires, in seconds."""
        session = self.get_session(folder.name, update_ts=False, fetch_cache=False)
        if session is not None:
            return float(session.last_access_ts + session.expiry)
        try:
            return folder.stat().st_mtime + float(self.expiry)
        except FileNotFoundError:  # its image is gone: MONAI Label has just removed it
            return float("inf")

    def holds(self, image: str) -> bool:
        """Say whether an image is that of a session."""
        return any(session.image == image for session in self.values())


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
