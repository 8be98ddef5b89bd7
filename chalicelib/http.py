"""The edge: requests to typed values, answers and errors to responses. The only place that knows statuses."""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from chalice.app import BadRequestError, Chalice, Request, Response

from chalicelib import errors
from chalicelib.commands import DrillSeen, Finish, Report, Start
from chalicelib.model import Change, Checked, DrillState, Kind, Mount, Outcome, PointMount, Stats
from chalicelib.ports import Telemetry

MAX_BODY_BYTES = 16 * 1024

STATUS: dict[type[errors.NightvaultError], int] = {
    errors.BadRequest: 400,
    errors.BodyTooLarge: 413,
    errors.WindowSpent: 429,
    errors.UnknownRun: 404,
    errors.UnknownPoint: 404,
    errors.NothingToRestore: 404,
    errors.UnknownHost: 404,
    errors.UnknownVault: 404,
    errors.UnknownProgram: 404,
    errors.RunIdTaken: 409,
    errors.RunSuperseded: 409,
    errors.StaleVault: 409,
    errors.VaultBusy: 409,
    errors.VolumeHoldsMore: 409,
    errors.DrillHindered: 409,
    errors.CodeRefused: 403,
    errors.NotForThisToken: 403,
    errors.LostRace: 503,
    errors.CloudRefused: 502,
}

# Patterns end in \Z: `$` would let a newline through at the end.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Host = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")]
Short = Annotated[str, msgspec.Meta(max_length=200)]
PublicKey = Annotated[str, msgspec.Meta(pattern=r"^ssh-ed25519 [A-Za-z0-9+/]{68}( [!-~][ -~]{0,99})?\Z")]
# Hosts hand it to ssh: never something that ssh would take for an option.
Address = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9:][A-Za-z0-9.:-]{0,199})?\Z")]
Point = Annotated[str, msgspec.Meta(pattern=r"^snap-[0-9A-Za-z]{1,40}\Z")]
Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Wire(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request body: an unknown field is an error, so that a typing mistake is never silently ignored."""


class StartBody(Wire):
    run_id: UUID
    kind: Kind
    point: Point | None = None

    def command(self, host: str, source_address: str) -> Start:
        """Without its restore point, which Control finds. Raises BadRequest for a point of a backup, or a drill."""
        if self.kind is Kind.DRILL:
            raise errors.BadRequest("kind: a host may start backup or restore")
        if self.point is not None and self.kind is not Kind.RESTORE:
            raise errors.BadRequest("point: only a run of kind restore has one")
        return Start(host=host, run_id=str(self.run_id), kind=self.kind, source_address=source_address)


class StatsBody(Wire):
    files_total: Count | None = None
    files_sent: Count | None = None
    bytes_total: Count | None = None
    bytes_sent: Count | None = None
    bytes_literal: Count | None = None
    archive_seconds: Count | None = None
    push_seconds: Count | None = None


class FinishBody(Wire):
    run_id: UUID
    outcome: Outcome
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    stats: StatsBody | None = None

    def command(self, host: str) -> Finish:
        """Raises BadRequest for the outcome that only the control plane gives."""
        if self.outcome is Outcome.ABANDONED:
            raise errors.BadRequest("outcome: a host may say complete, failed or cut")
        stats = Stats(**msgspec.structs.asdict(self.stats)) if self.stats else None
        return Finish(host=host, run_id=str(self.run_id), outcome=self.outcome, exit_code=self.exit_code, stats=stats)


class EnrollBody(Wire):
    code: Secret
    public_key: PublicKey


class MountBody(Wire):
    host: Host
    volume_id: Short
    state: Annotated[str, msgspec.Meta(pattern=r"^(mounted|absent|refused|error)\Z")]
    detail: Short = ""
    size_bytes: Count = 0
    free_bytes: Count = 0


class TransferBody(Wire):
    host: Host
    live: bool
    transfer_bytes: Count


class ChangeBody(Wire):
    files_before: Count
    files_after: Count
    files_added: Count
    files_changed: Count
    files_deleted: Count
    bytes_before: Count
    bytes_after: Count
    bytes_changed: Count


class CommitBody(Wire):
    host: Host
    run_id: UUID
    change: ChangeBody | None = None


class RestoreBody(Wire):
    host: Host
    volume_id: Short
    state: Annotated[str, msgspec.Meta(pattern=r"^(mounted|absent|refused|error)\Z")]
    detail: Short = ""


class DrillBody(Wire):
    host: Host
    volume_id: Short
    run_id: UUID
    state: DrillState
    files: Count = 0
    checked_bytes: Count = 0
    total_bytes: Count = 0
    detail: Short = ""

    def seen(self) -> DrillSeen:
        checked = Checked(
            state=self.state,
            files=self.files,
            checked_bytes=self.checked_bytes,
            total_bytes=self.total_bytes,
            # It goes into mails: who owns a vault must not write lines of its own there.
            detail="".join(letter if letter.isprintable() else "?" for letter in self.detail),
        )
        return DrillSeen(run_id=str(self.run_id), volume_id=self.volume_id, checked=checked)


class ReportBody(Wire):
    instance_id: Short
    boot_id: Short
    state: Annotated[str, msgspec.Meta(pattern=r"^(starting|ready|stopping)\Z")]
    address: Address
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    host_keys: Annotated[list[PublicKey], msgspec.Meta(min_length=1, max_length=4)]
    mounts: Annotated[list[MountBody], msgspec.Meta(max_length=64)] = []
    transfers: Annotated[list[TransferBody], msgspec.Meta(max_length=64)] = []
    commits: Annotated[list[CommitBody], msgspec.Meta(max_length=64)] = []
    restores: Annotated[list[RestoreBody], msgspec.Meta(max_length=64)] = []
    drills: Annotated[list[DrillBody], msgspec.Meta(max_length=64)] = []

    def command(self) -> Report:
        return Report(
            instance_id=self.instance_id,
            boot_id=self.boot_id,
            state=self.state,
            address=self.address,
            port=self.port,
            host_key=" ".join(self.host_keys[0].split()[:2]),
            mounts={
                mount.host: Mount(
                    volume_id=mount.volume_id,
                    mounted=mount.state == "mounted",
                    detail=mount.state if mount.state == "absent" else mount.detail,
                    size_bytes=mount.size_bytes,
                    free_bytes=mount.free_bytes,
                    refused=mount.state == "refused",
                )
                for mount in self.mounts
            },
            transfers={t.host: t.transfer_bytes for t in self.transfers if t.live},
            commits={commit.host: str(commit.run_id) for commit in self.commits},
            changes={each.host: Change(**msgspec.structs.asdict(each.change)) for each in self.commits if each.change},
            restores={
                restore.host: PointMount(volume_id=restore.volume_id, state=restore.state, detail=restore.detail)
                for restore in self.restores
            },
            drills={drill.host: drill.seen() for drill in self.drills},
        )


Body = TypeVar("Body", bound=Wire)


def body(request: Request, wire: type[Body]) -> Body:
    """The request's body, checked. Raises BadRequest that names the field, or BodyTooLarge."""
    if not str(request.headers.get("content-type", "")).lower().startswith("application/json"):
        raise errors.BadRequest("content-type: must be application/json")
    try:
        raw = request.raw_body
    except (ValueError, BadRequestError):
        raise errors.BadRequest("body: is not text") from None
    raw = raw.encode() if isinstance(raw, str) else raw
    if len(raw) > MAX_BODY_BYTES:
        raise errors.BodyTooLarge(f"body: {len(raw)} bytes; at most {MAX_BODY_BYTES} are taken")
    try:
        return msgspec.json.decode(raw, type=wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec.ValidationError, a DecodeError, ends in the field's path: "… - at `$.stats.bytes_sent`".
        raise errors.BadRequest(f"body: {error}") from None


def query_run_id(request: Request) -> str | None:
    """The `run_id` of the query, if there is one. Raises BadRequest for what is no UUID, or any other field."""
    run_id = _query(request, "run_id")
    if run_id is None:
        return None
    try:
        return str(UUID(run_id))
    except ValueError:
        raise errors.BadRequest("run_id: must be a UUID") from None


def query_sha256(request: Request) -> str:
    """The `sha256` of the query. Raises BadRequest."""
    sha256 = _query(request, "sha256") or ""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise errors.BadRequest("sha256: must be 64 hexadecimal digits")
    return sha256


def _query(request: Request, only: str) -> str | None:
    query: Mapping[str, str] = request.query_params or {}
    for name in query:
        if name != only:
            raise errors.BadRequest(f"query: unknown field {str(name)[:40]!r}; only {only} is taken")
    return query.get(only)


def caller(request: Request) -> str:
    """The name in the token that the authorizer has checked."""
    name: str = request.context["authorizer"]["principalId"]
    return name


def vault_id(request: Request) -> str:
    """The caller's vault id. Raises NotForThisToken for a host."""
    name = caller(request)
    if not name.startswith("@"):
        raise errors.NotForThisToken("this token is a host's; only a vault's agent reports")
    return name[1:]


def host_name(request: Request) -> str:
    """The caller's host name. Raises NotForThisToken for a vault's agent."""
    name = caller(request)
    if name.startswith("@"):
        raise errors.NotForThisToken("this token is a vault's; only hosts start, ask and finish")
    return name


def source_address(request: Request) -> str:
    """Where the request came from, as API Gateway saw it, in the one form that EC2 gives it back in."""
    address: str = request.context["identity"]["sourceIp"]
    try:
        return str(ip_address(address))
    except ValueError:
        raise errors.BadRequest(f"source address: {address[:40]!r} is none") from None


def respond(value: object, status: int = 200) -> Response:
    """Compact JSON."""
    return Response(msgspec.json.encode(value).decode(), {"Content-Type": "application/json"}, status)


def refuse(error: errors.NightvaultError) -> Response:
    """An error as a response. Raises KeyError for one that STATUS forgot; a test holds that it forgets none."""
    response = respond({"error": {"code": error.code, "message": str(error)}}, STATUS[type(error)])
    wait = getattr(error, "retry_after_seconds", None)
    if wait is not None:
        response.headers["Retry-After"] = str(wait)
    return response


View = Callable[[Request], Response]


def answers(app: Chalice, telemetry: Callable[[], Telemetry]) -> Callable[[View], Callable[[], Response]]:
    """Decorator of views: gives them the request, and turns errors into answers.

    Chalice would make a 500 of them before any middleware sees them.
    """

    def decorate(view: View) -> Callable[[], Response]:
        def answering() -> Response:
            request = app.current_request
            if request is None:
                raise AssertionError("a view is called by a route only")
            try:
                return view(request)
            except errors.NightvaultError as error:
                telemetry().event("refused", view=view.__name__, code=error.code, error=str(error))
                return refuse(error)
            except Exception as failure:
                telemetry().fault("view_failed", view=view.__name__, error=repr(failure))
                message = "something failed on our side; it is logged, and asking again is safe"
                return respond({"error": {"code": "Internal", "message": message}}, 500)

        answering.__name__ = view.__name__  # by which Chalice names the route's handler
        return answering

    return decorate
