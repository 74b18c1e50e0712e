"""`evergreen up` and `evergreen serve`."""

import os
import shlex
from typing import Annotated

import typer

from cl.errors import StoreError
from flows.addresses import shown
from flows.console import err
from flows.settings import Place, artifact_uri, begin, tracking_uri


def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")] = 5000,
    host: Annotated[str, typer.Option(help="Where both listen; anything but this machine alone comes with a warning.")] = "127.0.0.1",
    browse: Annotated[bool, typer.Option("--open", help="Open Prefect's pages in the browser, which is told the secret.")] = False,
) -> None:
    """Start the Prefect server and the MLflow UI on this machine, until Ctrl-C.

    Prefect's pages and API ask for a secret, which is made for the project and kept in its file .prefect/secret.
    """
    place = begin()
    from flows.servers.secret import SERVER, made, path
    from flows.servers.servers import check_free, mlflow_server, noticed, prefect_server, run_servers, warning

    uri, console, given = tracking_uri(place), err(), os.environ.get(SERVER)
    if running := noticed(place):
        address = running.removesuffix("/api")
        if not browse:
            raise StoreError(f"`evergreen up` runs already for this project, at {address}; `evergreen up --open` shows its pages")
        return _open(place, address, given or made(place))
    servers = [
        prefect_server(prefect_port, given or made(place), host=host),
        *([] if uri.startswith("http") else [mlflow_server(mlflow_port, uri, artifact_uri(place), host)]),
    ]
    check_free(servers)
    from flows.tracking.runs import connect
    from flows.tracking.views import listed

    client = connect(place)

    def ready() -> None:
        api, secret = servers[0].address, f'"${SERVER}"' if given else f'"$(cat {shlex.quote(str(path(place)))})"'
        kept = f"what {SERVER} says" if given else f"the secret in {path(place)}"
        for line in (
            f"Prefect  {api}  (asks for {kept}; `evergreen up --open` tells it to the browser)",
            f"MLflow   {servers[1].address if len(servers) > 1 else shown(uri)}/#/experiments?workflowType=machine_learning",
            *(f"         {servers[-1].address}/{page}  ({name})" for name, page in listed(client) if len(servers) > 1),
            f"evergreen finds them by itself; for the prefect command: export PREFECT_API_URL={api}/api PREFECT_API_AUTH_STRING={secret}",
            *([f"Warning: {told}"] if (told := warning(host)) else []),
            "Ctrl-C stops them.",
        ):
            console.print(line, soft_wrap=True)
        if browse:
            _open(place, api, given or made(place))

    console.print("Starting the Prefect server and the MLflow UI (about 15 seconds) ...")
    run_servers(place, servers, ready)
    console.print("Stopped.")


def _open(place: Place, address: str, secret: str) -> None:
    import webbrowser

    from flows.servers.secret import opener

    page = opener(place, address, secret)
    if not webbrowser.open(page.as_uri()):
        err().print(f"No browser was found; open {page} in yours.", soft_wrap=True)


def serve(
    config: Annotated[str, typer.Argument(metavar="[CONFIG]", help="What a run learns unless it is given another config.")] = "glyphs",
    cron: Annotated[str | None, typer.Option(help='When to learn what waits, such as "0 3 * * *": every night at three.')] = None,
) -> None:
    """Offer `update`, `learn-stream` and `compare` as deployments of a running Prefect server, until Ctrl-C.

    Where CONFIG learns a collection, each session that `evergreen ingest` adds to it starts `update`.
    """
    place = begin(PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="INFO")
    from flows.learn.configs import collections, settings
    from flows.learn.shipped import find_config
    from flows.servers.servers import find_server

    path, address, console = find_config(config, place), find_server(place), err()
    watched = collections(settings(str(path), [], place))
    if address is None:
        raise StoreError(
            "no Prefect server runs for this project; start one with `evergreen up` in another terminal, or set PREFECT_API_URL"
        )
    os.environ["PREFECT_API_URL"] = address  # Prefect reads it when it is imported
    from flows.serve import deployments
    from flows.serve import serve as serve_until_stopped
    from flows.servers.secret import CLIENT, kept
    from flows.servers.secret import path as secret_path
    from flows.tracking.reap import reap_flows

    offered = deployments(str(path), cron, watched)
    reap_flows(place)  # a run that was killed would hold its deployment's slot for minutes
    console.print(
        f"Serving update/update, learn-stream/learn-stream and compare/compare to {shown(address)}; Ctrl-C stops.", soft_wrap=True
    )
    if watched:
        console.print(f"New sessions in {', '.join(watched)} are learned as they come in.", soft_wrap=True)
    given = os.environ.get(CLIENT)  # of the server of `up` it is the project's: for no other is its file named
    own = f'{CLIENT}="$(cat {shlex.quote(str(secret_path(place)))})" ' if given and given == kept(place) else ""
    console.print(f"Start one: {own}PREFECT_API_URL={shown(address)} prefect deployment run 'update/update'", soft_wrap=True)
    serve_until_stopped(offered)
    console.print("Stopped.")
