"""Who reaches the server and what a request may say, for the addresses of MONAI Label that take more than they should.

MONAI Label listens everywhere, lets pages of any site read its answers, and hands options of a request on as they are:
to files, to paths of the processes it starts, and past the upload that is checked. Our routes stand before its own,
check, and call what its own call.
"""

import ipaddress
import logging
import sys
from collections.abc import Iterable
from pathlib import PurePath
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.main import Main
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from monai_fair.errors import LabelError, MonaiFairError
from monai_fair.label.server.routes import checked_routes

logger = logging.getLogger(__name__)

_NAMES = ("localhost", "127.0.0.1", "::1")


def refuse_public_host(public: bool) -> None:
    """Refuse to serve on an address that other machines reach, unless told to.

    ``monailabel start_server`` takes 0.0.0.0 where no ``--host`` is given. A server started by other means is not told
    by its command; :class:`OwnPages` refuses other machines there.

    Args:
        public: whether the operator says that others shall reach it.

    Raises:
        LabelError: if the command asks for such an address.
    """
    if public or "start_server" not in sys.argv:
        return
    host = Main().args_parser().parse_known_args(sys.argv[1:])[0].host
    if not is_loopback(host):
        raise LabelError(
            f"--host: expected an address of this machine alone, got {host} (MONAI Label takes 0.0.0.0 where none is "
            "given); anybody who reaches the server reads and writes the studies, and nobody is asked for a password: "
            "add --host 127.0.0.1, or --conf public true where others shall reach it"
        )


def is_loopback(host: str) -> bool:
    """Say whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class OwnPages:
    """Refuse requests of other machines, and those that pages of other sites make in a browser on this one.

    Args:
        app: what is behind.
        public: whether other machines may ask.
        origins: of other pages that may, such as ``https://viewer.example``.
    """

    def __init__(self, app: ASGIApp, *, public: bool, origins: Iterable[str]) -> None:
        self.app, self.public = app, public
        self.origins = {str(origin).rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or hand on."""
        problem = self._problem(scope) if scope["type"] in ("http", "websocket") else ""
        if problem:
            logger.warning("refused: %s", problem)
            await JSONResponse({"detail": problem}, status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> str:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = (scope.get("client") or ("",))[0]
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if not self.public and not is_loopback(client):
            return f"client: expected one on this machine, got {client}; start the server with --conf public true"
        # a name that leads to 127.0.0.1 today makes a page of that name one of ours
        if not self.public and (urlsplit(f"//{host}").hostname or "") not in _NAMES:
            return f"host: expected {' or '.join(_NAMES)}, got '{host}'; ask the server by that name"
        if origin and urlsplit(origin).netloc != host and origin.rstrip("/") not in self.origins:
            return f"origin: expected a page of this server, got {origin}; list it in MONAI_LABEL_CORS_ORIGINS"
        return ""


def close_doors(public: bool) -> None:
    """Put our routes before MONAI Label's, say errors as JSON, and refuse pages of other sites.

    Called while the server starts: what stands between a request and a route is built anew with the first one.

    Args:
        public: whether other machines may ask.
    """
    from monailabel.app import app  # it reads settings, and only a server has it

    origins = settings.MONAI_LABEL_CORS_ORIGINS
    kept = [each for each in app.user_middleware if each.cls is not CORSMiddleware or origins]
    app.user_middleware = [Middleware(OwnPages, public=public, origins=origins), *kept]
    app.router.routes[:0] = checked_routes().routes
    app.add_exception_handler(MonaiFairError, _refused)
    app.add_exception_handler(MONAILabelException, _refused)
    _rebuild(app)


def _rebuild(app: FastAPI) -> None:
    app.middleware_stack = None


def _refused(request: Request, error: Exception) -> JSONResponse:
    absent = isinstance(error, ImageNotFoundException | LabelNotFoundException)
    message = str(getattr(error, "msg", error))
    logger.warning("%s %s: %s", request.method, PurePath(request.url.path), message)
    return JSONResponse({"detail": message}, status_code=404 if absent else 400)
