"""Who is answered: this machine's own browser with the token, and nobody else."""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses what does not come from this machine's own browser, and says nothing to other sites.

    Parameters
    ----------
    app : ASGI application
        Answers what is let through.
    token : str
        Known to whoever started the viewer; taken once from the address, then from a cookie.

    Notes
    -----
    The host is checked by name and not by port, so that an SSH tunnel may use another port; a foreign name pointed at this
    machine (DNS rebinding) is refused. Only GET and HEAD are answered. No header ever allows another origin.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        self._cookie = f"pathoml_{secrets.token_hex(4)}"  # cookies do not know ports: two viewers, two names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it.

        Parameters
        ----------
        scope, receive, send
            As ASGI defines them.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self._welcome(scope)
        await (answer or self._app)(scope, receive, send_sealed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _host_name(hosts[0]) not in _LOCAL_NAMES:
            return PlainTextResponse("this viewer answers to 127.0.0.1 and localhost only", 421)
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("this viewer is read only", 405)
        if _is_foreign(headers, hosts[0]):
            return PlainTextResponse("this viewer answers no other site", 403)
        return None

    def _welcome(self, scope: Scope) -> Response | None:
        """Take the token from the address into a cookie; let through who has it; refuse the others."""
        headers = Headers(scope=scope)
        if scope["path"] == "/":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if len(given) == 1 and self._is_token(given[0]):
                response = RedirectResponse("./", 303)
                response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
                return response
        if self._is_token(headers.get("authorization", "").removeprefix("Bearer ")):
            return None
        if self._is_token(_cookie(headers.get("cookie", ""), self._cookie)):
            return None
        return PlainTextResponse("open the address that 'pathoml view' printed, with its token", 403)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _host_name(host: str) -> str:
    return host.rsplit(":", 1)[0].lower() if not host.endswith("]") else host.lower()


def _is_foreign(headers: Headers, host: str) -> bool:
    """Tell whether another site made the browser ask; a link followed from elsewhere only opens the list."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    site = headers.get("sec-fetch-site", "none")
    return site not in {"same-origin", "none"} and headers.get("sec-fetch-mode") != "navigate"


def _cookie(header: str, name: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(header)
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""
