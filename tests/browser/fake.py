"""Stand-in for the server until it is there: the real edits on a grid of elements, and jobs whose steps sleep."""

import asyncio
import base64
import io
import json
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image, PngImagePlugin

from elements_jax import edits
from elements_jax.edits import Canvas, Transform, selection
from elements_jax.elements import ImageElements

STATIC = Path(__file__).parents[2] / "elements_jax" / "editor" / "static"


@dataclass
class Fake:
    size: int = 64
    grid: int = 8
    delay: float = 0.03
    sam: bool = True
    images: dict = field(default_factory=dict)
    jobs: dict = field(default_factory=dict)
    ids: count = field(default_factory=count)

    @property
    def n(self):
        return self.grid**2

    def start(self, image):
        cell = self.size // self.grid
        row = np.arange(self.size) // cell
        labels = (row[:, None] * self.grid + row[None]).astype(np.int32)
        # A wavy grid, so that boundaries look like those of a photograph.
        y, x = np.mgrid[: self.size, : self.size]
        wave = cell / 5
        yy = np.clip(y + wave * np.sin(x / cell * 2), 0, self.size - 1).astype(int) // cell
        xx = np.clip(x + wave * np.cos(y / cell * 2), 0, self.size - 1).astype(int) // cell
        if self.size > 128:
            labels = (yy * self.grid + xx).astype(np.int32)
        position = np.zeros((self.n, 4), np.float32)
        for k in range(self.n):
            ys, xs = np.nonzero(labels == k)
            position[k] = np.array(
                [xs.mean() + 0.5, ys.mean() + 0.5, np.ptp(xs) + 1, np.ptp(ys) + 1], np.float32
            ) / self.size
        elements = ImageElements(jnp.zeros((self.n, 1)), jnp.asarray(position), jnp.ones(self.n, bool))
        return Canvas(elements, jnp.asarray(labels)), image

    def run(self, body):
        canvas, image = self.start(self.images[body["image"]])
        tolerance = body["script"].get("tolerance", 0.0)
        for i, edit in enumerate(body["script"].get("edits", [])):
            where = f"edits[{i}] ({edit['edit']})"
            if edit["edit"] == "continue":
                other = self.images[body["images"][edit["image"]]]
                holes = np.asarray(canvas.label_map) == self.n
                image = np.where(holes[..., None], other, image)
                free = int(jnp.argmin(canvas.elements.valid))
                if holes.any():
                    ys, xs = np.nonzero(holes)
                    place = [xs.mean() / self.size, ys.mean() / self.size, np.ptp(xs) / self.size, np.ptp(ys) / self.size]
                    canvas = Canvas(
                        replace(
                            canvas.elements,
                            position=canvas.elements.position.at[free].set(jnp.float32(place)),
                            valid=canvas.elements.valid.at[free].set(True),
                        ),
                        jnp.where(jnp.asarray(holes), free, canvas.label_map),
                    )
                continue
            source, picture = canvas, image
            if edit["edit"] == "compose":
                source, picture = self.start(self.images[body["images"][edit["image"]]])
            valid = np.asarray(source.elements.valid)
            for n in edit["elements"]:
                if not valid[n]:
                    raise ValueError(f"{where}: element {n} is empty or was deleted by an earlier edit")
            selected = selection(self.n, edit["elements"])
            anchor = edit.get("anchor") or np.asarray(edits.centre(source, selected)).tolist()
            by = Transform(
                jnp.broadcast_to(jnp.float32(edit.get("scale", 1.0)), (2,)),
                jnp.float32(edit.get("by", (0, 0))),
                jnp.float32(anchor),
            )
            match edit["edit"]:
                case "delete":
                    canvas = edits.delete(canvas, selected)
                case "move" | "resize":
                    image = np.asarray(edits.paste_pixels(image, picture, source.label_map, selected, by))
                    canvas = edits.transform(canvas, selected, by, tolerance)
                case "duplicate" | "compose":
                    image = np.asarray(edits.paste_pixels(image, picture, source.label_map, selected, by))
                    canvas, slots = edits.compose(canvas, source, selected, by, tolerance)
                    placed = int((slots < self.n).sum())
                    if placed < len(edit["elements"]):
                        raise ValueError(f"{where}: only {placed} of {len(edit['elements'])} elements find a place")
        return canvas, np.where((np.asarray(canvas.label_map) == self.n)[..., None], 0, image)


def png(image, **text):
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    file = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def error(status, text):
    return JSONResponse({"error": text}, status)


def make_app(fake: Fake) -> FastAPI:
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=STATIC), "static")

    @app.middleware("http")
    async def headers(request, call_next):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data: blob:"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/")
    def page():
        return FileResponse(STATIC / "index.html")

    @app.get("/api/model")
    def model():
        return {
            "name": "tiny", "image_size": fake.size, "num_elements": fake.n, "steps": 10, "guidance": 3.0,
            "samplers": ["ddim", "euler", "dpm"], "segmenter": "SLIC", "select_objects": fake.sam,
            "notice": "The tiny model paints blobs; start with --checkpoint for a trained one.",
            "limits": {"upload_bytes": 20_000_000, "pixels": 50_000_000, "variants": 8, "queue": 8},
        }

    @app.post("/api/images", status_code=201)
    async def upload(request: Request, fit: str = "crop"):
        try:
            picture = Image.open(io.BytesIO(await request.body())).convert("RGB")
        except Exception:
            return error(415, "the file is not a picture that can be read: expected PNG, JPEG or WebP")
        w, h = picture.size
        side = min(w, h)
        left, top = (w - side) // 2, (h - side) // 2
        square = picture.crop((left, top, left + side, top + side)).resize((fake.size, fake.size))
        name = f"img{next(fake.ids)}"
        fake.images[name] = np.asarray(square)
        said = f"{w} x {h} px: {w - side} columns and {h - side} rows were cropped, and the square scaled to {fake.size} px."
        return {"id": name, "width": fake.size, "height": fake.size, "box": [0, 0, 1, 1], "said": said}

    @app.get("/api/images/{name}.png")
    def image(name: str):
        return Response(png(fake.images[name]), media_type="image/png")

    @app.post("/api/canvas")
    async def canvas(request: Request):
        body = await request.json()
        try:
            canvas, picture = fake.run(body)
        except KeyError as missing:
            return error(404, f"picture {missing} is not known here; open it again")
        except ValueError as problem:
            return error(422, str(problem))
        valid, position = np.asarray(canvas.elements.valid), np.asarray(canvas.elements.position)
        return {
            "size": fake.size,
            "elements": [
                dict(number=int(k), **dict(zip(("x", "y", "width", "height"), map(float, position[k]), strict=True)))
                for k in np.nonzero(valid)[0]
            ],
            "label_map": base64.b64encode(np.asarray(canvas.label_map).astype("<u2").tobytes()).decode(),
            "preview": "data:image/png;base64," + base64.b64encode(png(picture)).decode(),
            "free": int((~valid).sum()),
        }

    @app.post("/api/objects")
    async def objects(request: Request):
        body = await request.json()
        if not fake.sam:
            return error(409, "this server has no SAM: start it with --sam")
        labels = np.asarray(fake.run(body)[0].label_map)
        at = lambda p: int(labels[int(p[1] * fake.size), int(p[0] * fake.size)])  # noqa: E731
        found = set()
        for p in body["positive"]:
            k = at(p)
            found |= {k, k + 1, k + fake.grid, k + fake.grid + 1}
        return {"elements": sorted(found - {at(p) for p in body["negative"]} - {fake.n})}

    @app.post("/api/scripts")
    async def scripts(request: Request):
        body = await request.body()
        if body.startswith(b"\x89PNG"):
            text = Image.open(io.BytesIO(body)).text.get("script")
            if text is None:
                return error(422, "this PNG carries no edit script")
            return {"script": json.loads(text)}
        try:
            return {"script": json.loads(body)}
        except ValueError as problem:
            return error(422, f"not JSON: {problem}")

    def public(job):
        return {k: v for k, v in job.items() if not k.startswith("_")}

    @app.post("/api/jobs", status_code=202)
    async def run(request: Request):
        body = await request.json()
        try:
            _, picture = fake.run(body)
        except ValueError as problem:
            return error(422, str(problem))
        name = f"job{next(fake.ids)}"
        steps = body["script"].get("sampling", {}).get("steps") or 10
        job = fake.jobs[name] = {
            "id": name, "status": "queued", "position": 0, "variant": 0, "variants": body["variants"], "step": 0,
            "steps": steps, "results": [], "error": None, "_body": body, "_png": [], "_event": asyncio.Condition(),
        }

        async def tell(**values):
            async with job["_event"]:
                job.update(values)
                job["_event"].notify_all()

        async def work():
            for k in range(body["variants"]):
                for step in range(steps):
                    await asyncio.sleep(fake.delay)
                    if job["status"] == "cancelled":
                        return
                    await tell(status="running", variant=k, step=step + 1)
                seed = body["script"].get("seed", 0) + k
                tint = np.random.default_rng(seed).integers(-40, 40, 3)
                out = np.clip(np.where(picture == 0, 120, picture) + tint, 0, 255)
                job["_png"].append(png(out, script=json.dumps({**body["script"], "seed": seed})))
                await tell(results=[f"/api/jobs/{name}/{i}.png" for i in range(k + 1)])
            await tell(status="done")

        job["_task"] = asyncio.create_task(work())
        return public(job)

    @app.get("/api/jobs/{name}/events")
    async def events(name: str):
        job = fake.jobs[name]

        async def stream():
            try:
                while True:
                    yield f"data: {json.dumps(public(job))}\n\n"
                    if job["status"] in ("done", "failed", "cancelled"):
                        return
                    async with job["_event"]:
                        await job["_event"].wait()
            finally:
                if job["status"] in ("queued", "running"):
                    job["status"] = "cancelled"

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.delete("/api/jobs/{name}")
    async def cancel(name: str):
        job = fake.jobs[name]
        async with job["_event"]:
            job["status"] = "cancelled"
            job["_event"].notify_all()
        return public(job)

    @app.get("/api/jobs/{name}/{k}.png")
    def result(name: str, k: int):
        return Response(fake.jobs[name]["_png"][k], media_type="image/png")

    return app


if __name__ == "__main__":
    import sys

    import uvicorn

    size, grid, port = (int(v) for v in sys.argv[1:4])
    uvicorn.run(make_app(Fake(size, grid)), port=port, log_level="warning")
