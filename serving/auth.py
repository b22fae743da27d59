"""Who may change what is live: whoever has the token."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serving.errors import ErrorDetail, RequestError

_SCHEME = HTTPBearer(auto_error=False, description="The server's HEADWATER_TOKEN")


def require_token(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]) -> str:
    """Name under which the caller's change is recorded.

    Raises:
        RequestError: The server has no token, or the caller has not got it.
    """
    expected: str | None = request.app.state.token
    if expected is None:
        raise RequestError(
            ErrorDetail(
                code="writes_closed",
                message="write routes need a server with a token (this one was started without)",
                remedy="start the server with HEADWATER_TOKEN or HEADWATER_TOKEN_FILE",
            ),
            status=403,
        )
    # Compared as bytes in constant time: neither the length of a common start nor the alphabet may show.
    if given is None or not hmac.compare_digest(given.credentials.encode(), expected.encode()):
        raise RequestError(
            ErrorDetail(
                code="unauthorized",
                message=f"the request must carry the server's token (got {'a wrong one' if given else 'none'})",
                field="Authorization",
                remedy="send the header Authorization: Bearer <HEADWATER_TOKEN>",
            ),
            status=401,
        )
    return f"token@{request.client.host if request.client else 'unknown'}"


Operator = Annotated[str, Depends(require_token)]
