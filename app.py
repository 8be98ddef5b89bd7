"""nightvault's Lambdas: routes, authorizer, schedule, events. Bodies delegate; see chalicelib/control.py."""

from typing import Any

from chalice.app import AuthRequest, AuthResponse, Chalice, CloudWatchEvent, Rate, Request, Response

from chalicelib import auth, http, widget, wiring
from chalicelib import operate as operators

app = Chalice(app_name="nightvault", configure_logs=False)
answers = http.answers(app, wiring.telemetry)


# The answer is cached by token for a minute: so long may a token outlive its rotation.
@app.authorizer(ttl_seconds=60)
def bearer(request: AuthRequest) -> AuthResponse:
    caller = auth.authenticate(request.token, wiring.store())
    return AuthResponse(list(caller.routes), caller.name) if caller else AuthResponse([], "nobody")


@app.route("/start", methods=["POST"], authorizer=bearer)
@answers
def start(request: Request) -> Response:
    body = http.body(request, http.StartBody)
    command = body.command(http.host_name(request), http.source_address(request))
    return http.respond(wiring.control().start(command, body.point), 202)


@app.route("/status", methods=["GET"], authorizer=bearer)
@answers
def status(request: Request) -> Response:
    return http.respond(wiring.control().status(http.host_name(request), http.query_run_id(request)))


@app.route("/points", methods=["GET"], authorizer=bearer)
@answers
def points(request: Request) -> Response:
    return http.respond(wiring.control().points(http.host_name(request)))


@app.route("/finish", methods=["POST"], authorizer=bearer)
@answers
def finish(request: Request) -> Response:
    command = http.body(request, http.FinishBody).command(http.host_name(request))
    return http.respond(wiring.control().finish(command))


@app.route("/enroll", methods=["POST"])
@answers
def enroll(request: Request) -> Response:
    body = http.body(request, http.EnrollBody)
    return http.respond(wiring.enrolment().enroll(body.code, body.public_key))


@app.route("/program", methods=["GET"])
@answers
def program(request: Request) -> Response:
    return http.respond(wiring.program().document(http.query_sha256(request)))


@app.route("/report", methods=["POST"], authorizer=bearer)
@answers
def report(request: Request) -> Response:
    command = http.body(request, http.ReportBody).command()
    return http.respond(wiring.control().report(http.vault_id(request), command))


@app.schedule(Rate(1, unit=Rate.MINUTES))
def sweep(event: CloudWatchEvent) -> None:
    wiring.control().sweep()


# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
@app.on_cw_event(
    {
        "source": ["aws.ec2"],
        "detail-type": ["EC2 Instance State-change Notification"],
        "detail": {"state": ["running", "stopped", "terminated"]},
    }
)
def instance_changed(event: CloudWatchEvent) -> None:
    wiring.control().instance_changed(event.detail["instance-id"])


# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-cloud-watch-events.html
@app.on_cw_event(
    {
        "source": ["aws.ec2"],
        "detail-type": ["EBS Snapshot Notification"],
        "detail": {"event": ["createSnapshot"]},
    }
)
def snapshot_changed(event: CloudWatchEvent) -> None:
    wiring.control().snapshot_changed(event.detail["snapshot_id"].rsplit("/", 1)[-1])


@app.lambda_function()
def operate(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return operators.operate(event)


@app.lambda_function()
def timeline_widget(event: dict[str, Any], context: Any) -> str:
    return widget.timeline_widget(event)
