"""`/v1/embeddings` for the student, so that other programs can use it in place of a paid one."""

from collections.abc import Sequence
from typing import Any

from index.embedders.base import Embedder, embed_checked
from index.embedders.http_formats import read_input, write_answer
from index.errors import ImageError, needs
from index.images.decode import decode

with needs("demo"):
    from fastapi import APIRouter, HTTPException, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse

LARGEST_REQUEST = 50_000_000  # bytes
MOST_IMAGES = 256  # a request
ENCODINGS = ("float", "base64")


def build_embeddings(student: Embedder) -> APIRouter:
    """Serve an embedder in the three ways of `index.embedders.http_formats`.

    Errors are answered as 400 (the request), 411 and 413 (its size), in OpenAI's form.
    """
    router = APIRouter()

    @router.post("/v1/embeddings")
    async def embeddings(request: Request) -> Any:
        try:
            files, encoding = await _read(request)
            return await run_in_threadpool(_answer, student, files, encoding)
        except HTTPException as error:
            said = {"message": error.detail, "type": "invalid_request_error"}
            return JSONResponse({"error": said}, error.status_code)

    return router


async def _read(request: Request) -> tuple[list[bytes], str]:
    """The files of a request, and how it wants the vectors."""
    _check_length(request)
    files, encoding = await (_read_form(request) if _is_form(request) else _read_json(request))
    if encoding not in ENCODINGS:
        raise HTTPException(400, f"encoding_format must be one of {', '.join(ENCODINGS)}.")
    if not 0 < len(files) <= MOST_IMAGES:
        raise HTTPException(400, f"Send between 1 and {MOST_IMAGES} images, not {len(files)}.")
    return files, encoding


def _check_length(request: Request) -> None:
    """Refuse what is too large before any of it is read."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HTTPException(411, "Send a Content-Length.")
    if int(length) > LARGEST_REQUEST:
        raise HTTPException(413, f"Send at most {LARGEST_REQUEST // 1_000_000} MB.")


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


async def _read_form(request: Request) -> tuple[list[bytes], str]:
    async with request.form(max_files=MOST_IMAGES, max_fields=8) as form:
        files = [await part.read() for part in form.getlist("images") if not isinstance(part, str)]
        return files, str(form.get("encoding_format", "float"))


async def _read_json(request: Request) -> tuple[list[bytes], str]:
    try:
        asked = await request.json()
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise HTTPException(400, "Send JSON, or a multipart form with the files under `images`.")
    if asked.get("modality", "image") != "image":
        raise HTTPException(400, "This model embeds images only. Send modality: image.")
    entries = asked.get("input")
    entries = entries if isinstance(entries, list) else [entries]
    files = []
    for i, entry in enumerate(entries[: MOST_IMAGES + 1]):
        try:
            files.append(read_input(entry))
        except ValueError as reason:
            raise HTTPException(400, f"input {i} {reason}.") from reason
    return files, str(asked.get("encoding_format") or asked.get("embedding_type") or "float")


def _answer(student: Embedder, files: Sequence[bytes], encoding: str) -> dict[str, Any]:
    names = [f"input {i}" for i in range(len(files))]
    prepared = []
    for name, data in zip(names, files, strict=True):
        try:
            prepared.append(student.prepare(decode(data, name, student.side)))
        except ImageError as reason:
            raise HTTPException(400, f"{name}: {reason}.") from reason
    return write_answer(embed_checked(student, prepared, names), student.name, encoding)
