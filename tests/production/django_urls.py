"""Django's part of `apps`, since Django requires a module of routes."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from athina_trace import athina_trace


@athina_trace
def answer(question: str) -> str:
    return f"answer to {question}"


def ask(request: HttpRequest) -> HttpResponse:
    return HttpResponse(answer(request.GET["q"]))


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    question = request.GET["q"]

    def words() -> Iterator[str]:
        yield "first "
        yield answer(question)

    return StreamingHttpResponse(words())


urlpatterns = [path("ask", ask), path("streamed", streamed)]
