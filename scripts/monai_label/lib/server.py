"""The web server: those endpoints of MONAI Label that make sense here, and faults as one line with a status."""

from __future__ import annotations

import errno
from json import JSONDecodeError

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.endpoints import activelearning, datastore, infer, info
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from bundle import __version__
from bundle.data.output import told
from bundle.errors import InputError
from scripts.monai_label.lib.refusals import status_of


def make_server(app: MONAILabelApp) -> FastAPI:
    """The server of an app, which has to be what MONAI Label's `app_instance()` returns.

    There are no endpoints for training, scoring, batches, DICOM and logs: the app has none of it.
    """

    async def look_again(image: str = "", id: str = "", label: str = "") -> None:  # async: nothing else runs meanwhile
        app.datastore().refresh()
        for name in (image, id, label):
            app.datastore().id_of(name)  # which refuses one that leads out of the folder, whatever it is for

    def line(status: int, text: str) -> JSONResponse:
        return JSONResponse({"detail": text.replace(f"{app.datastore().root}/", "")}, status)

    server = FastAPI(title="MSG-LDM", description=app.description, version=__version__)
    for part in (info, infer, datastore, activelearning):
        server.include_router(part.router, dependencies=[Depends(look_again)])

    @server.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        return line(status_of(error), str(error).strip())

    @server.exception_handler(JSONDecodeError)
    async def bad_json(_: Request, error: JSONDecodeError) -> JSONResponse:
        return line(400, f'params are no JSON ({error}). Send an object such as {{"target": "flair"}}')

    @server.exception_handler(ImageNotFoundException)
    @server.exception_handler(LabelNotFoundException)
    async def not_found(_: Request, error: MONAILabelException) -> JSONResponse:
        return line(404, error.msg)

    @server.exception_handler(MONAILabelException)
    async def bad_request(_: Request, error: MONAILabelException) -> JSONResponse:
        return line(400, error.msg)

    @server.exception_handler(OSError)
    async def bad_disk(_: Request, error: OSError) -> JSONResponse:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return line(507 if full else 500, told(error, app.datastore().root))

    return server
