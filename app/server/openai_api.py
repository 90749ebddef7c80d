"""`/v1/embeddings` for the student, so that other programs can use it in place of a paid one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.server import api
from app.server.concurrency import SharedSearcher
from index.embedders.http_formats import read_input, write_answer
from index.errors import ImageError, needs
from index.images.decode import decode

with needs("demo"):
    from fastapi import APIRouter, HTTPException, Request
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException as AnyHTTPException

IMAGES_ONLY = "This model embeds images, not text: send a data URL."
MOST_IMAGES = 256  # a request
ENCODINGS = ("float", "base64")
ASKED = {
    "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "dimensions": {"type": "integer"},
    "encoding_format": {"enum": list(ENCODINGS)},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    code: known | {"content": {"application/json": {"schema": {"type": "object"}}}}
    for code, known in api.ERRORS.items()
}
BODY = {"type": "object", "required": ["input"], "properties": ASKED}


def build_embeddings(searcher: SharedSearcher) -> APIRouter:
    """Serve the student in the three ways of `index.embedders.http_formats`, in the student's turn.

    Errors are answered in OpenAI's form: 400 for the request, 413 for its size, which `app.server.guard`
    limits, 502 for a model that fails, 503 for a server that is busy.
    """
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Name the model that embeds: the student."""
        made = int(datetime.fromisoformat(searcher.index.manifest.created).timestamp())
        model = {"id": searcher.models["student"].name, "object": "model", "created": made}
        return {"object": "list", "data": [model | {"owned_by": "retrieval"}]}

    sent = {"requestBody": {"required": True, "content": {"application/json": {"schema": BODY}}}}

    @router.post("/v1/embeddings", openapi_extra=sent, responses=ERRORS)
    async def embeddings(request: Request) -> Any:
        """Embed images given as data URLs, in the form of OpenAI's API."""
        try:
            with api.refusing():
                files, asked = await _read(request)
                encoding = _check(asked, searcher.models["student"].dim)
                return await searcher.run("student", lambda: _answer(searcher, files, encoding))
        except AnyHTTPException as error:  # Starlette's, too, of a form that it does not take
            kind = "invalid_request_error" if error.status_code < 500 else "server_error"
            said = {"error": {"message": error.detail, "type": kind}}
            return JSONResponse(said, error.status_code, error.headers)

    return router


def _check(asked: Mapping[str, Any], dim: int) -> str:
    """Refuse what the student cannot answer as asked, and return how the vectors are to be written."""
    encoding = str(asked.get("encoding_format") or asked.get("embedding_type") or "float")
    if encoding not in ENCODINGS:
        raise HTTPException(400, f"encoding_format must be one of {', '.join(ENCODINGS)}.")
    if asked.get("dimensions") not in (None, "", dim, str(dim)):
        raise HTTPException(400, f"dimensions must be {dim}, or left out: this model makes no other vectors.")
    return encoding


async def _read(request: Request) -> tuple[list[bytes], Mapping[str, Any]]:
    """Read the images, and what else was asked, of a form or of JSON."""
    if api.is_form(request):
        async with request.form(max_files=MOST_IMAGES, max_fields=8) as form:
            files = [await part.read() for part in form.getlist("images") if not isinstance(part, str)]
            _require_some(len(files))
            return files, dict(form)
    asked = await api.read_object(request)
    if asked is None:
        raise HTTPException(400, "Send JSON, or a multipart form with the files under `images`.")
    if asked.get("modality", "image") != "image":
        raise HTTPException(400, "This model embeds images only. Send modality: image.")
    entries = asked.get("input")
    entries = entries if isinstance(entries, list) else [entries]
    _require_some(len(entries))
    files = []
    for i, entry in enumerate(entries):
        try:
            files.append(read_input(entry))
        except ValueError as reason:
            hint = f" {IMAGES_ONLY}" if str(reason) == "is not base64" else ""
            raise HTTPException(400, f"input {i} {reason}.{hint}") from reason
    return files, asked


def _require_some(images: int) -> None:
    if not 0 < images <= MOST_IMAGES:
        raise HTTPException(400, f"Send between 1 and {MOST_IMAGES} images, not {images}.")


def _answer(searcher: SharedSearcher, files: Sequence[bytes], encoding: str) -> dict[str, Any]:
    student, inputs = searcher.models["student"], []
    for i, data in enumerate(files):
        try:  # of a decoded photo only the input is kept
            inputs.append(student.prepare(decode(data, f"input {i}", student.decode_side)))
        except ImageError as reason:
            raise HTTPException(400, f"input {i}: {reason}.") from reason
    names = [f"input {i}" for i in range(len(files))]
    return write_answer(searcher.embed_inputs(inputs, names), student.name, encoding)
