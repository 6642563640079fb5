"""The server of the explorer's page: it answers this machine's browser, and nothing but the page's own requests.

gradio has more routes than the page uses, among them some that read files, take uploads or fetch addresses. The server
blocks them, whatever gradio itself checks: the page needs none of them, since its pictures are data URIs.
"""

import os
import re
import socket
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial

from common.errors import InputError, require
from common.io import MIB, decode
from tools.exploration.page import STYLE
from tools.exploration.pictures import MAX_BYTES

import gradio as gr
import gradio.routes
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

ADDRESS = "127.0.0.1"
MAX_VALUES = 10_000  # in a request
MAX_PAGES = 100  # open pages whose last values gradio keeps
ROUTES = re.compile(
    r"GET /(theme\.css|favicon\.ico|manifest\.json)?|GET /(assets|static)(/[\w@-][\w.@-]*)+|POST /gradio_api/run/\w+"
)
# 'unsafe-inline' and 'unsafe-eval': gradio's page has scripts in itself, and compiles the templates of gr.HTML
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


def listen(port: int) -> socket.socket:
    """A socket that listens at a port of this machine, for this machine alone.

    Raises:
        InputError: there is no such port, or it is in use.
    """
    require(0 < port < 2**16, f"--port must be 1 to {2**16 - 1}, not {port}")
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        raise InputError(f"--port {port}: {os.strerror(error.errno)}: choose another port") from error


def application(make: Callable[[], gr.Blocks], call: type) -> FastAPI:
    """The server's application, with the page that `make` returns, whose requests in JSON are of the type `call`."""
    # another site can let its own name lead to this address, and its scripts would then be this page's: check the host
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"])
    app = FastAPI(middleware=[hosts, Middleware(BaseHTTPMiddleware, dispatch=partial(guard, call=call))])
    with tempfile.TemporaryDirectory() as folder:  # gradio makes a folder in it, for routes that are shut
        gradio.routes.DEFAULT_TEMP_DIR = folder
        page = make()
        page.state_session_capacity = MAX_PAGES
        return gr.mount_gradio_app(app, page, "/", footer_links=[], run_history=False, ssr_mode=False, css=STYLE)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve an application until Ctrl-C, which raises KeyboardInterrupt."""
    print(f"open http://{ADDRESS}:{listening.getsockname()[1]} in a browser; Ctrl-C ends", flush=True)
    config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listening])


async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]], call: type) -> Response:
    """Answer a request if the page itself makes such requests, and tell the browser to load nothing from elsewhere."""
    origin, body = request.headers.get("origin"), bytearray()
    if origin not in (None, f"http://{request.headers['host']}"):
        return PlainTextResponse("only the explorer's own page may ask", 403)
    if not ROUTES.fullmatch(f"{request.method} {request.url.path}"):
        return PlainTextResponse("there is no such page", 404)
    if request.method == "POST":
        async for chunk in request.stream():  # a request's own headers need not tell its length
            body += chunk
            if len(body) > MAX_BYTES:
                return PlainTextResponse(f"a request has at most {MAX_BYTES / MIB:g} MiB", 413)
        if sum(map(body.count, (b",", b"[", b"{"))) >= MAX_VALUES:  # one stands before each value but the first
            return PlainTextResponse(f"a request has at most {MAX_VALUES:,} values", 413)
        try:
            decode(bytes(body), call, "the request", "ask as the page does")
        except InputError as error:
            return PlainTextResponse(str(error), 400)
        request._body = bytes(body)  # where Request.body would keep it, for gradio to read
    response = await answer(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response
