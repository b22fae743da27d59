"""`GET /metrics`: what an operator watches, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.state import Measured

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
async def metrics(measured: Measured) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(measured.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
