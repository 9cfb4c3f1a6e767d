"""Every error a caller can meet. Each says whose fault it is, whether to retry, and what to do now (`hint`).

    HoldfastError
    ├── NotFound          caller   no such session, message, part or request
    ├── Invalid           caller   the request itself is wrong; it will be wrong again
    │   └── TooLarge      caller   over a size limit
    ├── Conflict          caller   true, but not now: the state is another one
    │   ├── VersionConflict        another writer came first
    │   └── SessionBusy            a turn is running
    ├── Denied            caller   no credential, or not for this
    ├── LeaseLost         server   another runner owns the turn now; stop quietly
    ├── Unavailable       server   try again later
    └── StorageError      operator disk full, I/O error, foreign file, newer schema: the process stops rather than guess
        └── StorageLocked          another server has the data directory

`code` is stable: faces map it to their wire form. Messages name the thing that is wrong and never carry a traceback,
a path inside the server's own files (StorageError excepted: the operator needs it) or a secret.
"""

from typing import ClassVar, Literal

Fault = Literal["caller", "server", "operator"]


class HoldfastError(Exception):
    """`str(error)` is one sentence for a person; `hint` says what to do now; `retryable` whether the same call may work later."""

    code: ClassVar[str] = "internal"
    fault: ClassVar[Fault] = "server"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(HoldfastError):
    """`kind` is what was looked for ("Session", "Message", …), `id` the id that does not exist."""

    code = "not_found"
    fault = "caller"

    def __init__(self, kind: str, id: str, *, hint: str | None = None) -> None:
        super().__init__(f"{kind} not found: {id}", hint=hint)
        self.kind = kind
        self.id = id


class Invalid(HoldfastError):
    """`field` is the place in the request, as the caller wrote it ("messageID", "limit"), when there is one."""

    code = "invalid"
    fault = "caller"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class TooLarge(Invalid):
    code = "too_large"


class Conflict(HoldfastError):
    code = "conflict"
    fault = "caller"


class VersionConflict(Conflict):
    """Another writer came first: read again, decide again, append again."""

    code = "version_conflict"
    retryable = True


class SessionBusy(Conflict):
    code = "session_busy"
    retryable = True

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session is busy: {session_id}", hint="Wait for it to become idle, or abort the turn.")
        self.session_id = session_id


class Denied(HoldfastError):
    code = "denied"
    fault = "caller"


class LeaseLost(HoldfastError):
    code = "lease_lost"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"The turn of {session_id} belongs to another runner now.")
        self.session_id = session_id


class Unavailable(HoldfastError):
    code = "unavailable"
    retryable = True


class StorageError(HoldfastError):
    code = "storage"
    fault = "operator"


class StorageLocked(StorageError):
    code = "storage_locked"
