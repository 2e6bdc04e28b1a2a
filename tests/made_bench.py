"""Made-up benches for the tests of tables and report."""

import io
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from ssl_zoo.bench.report import render_table, write_report

SCORES = {"dino": 0.62, "byol": 0.55, "moco": 0.54, "random": 0.31}
CLASSES = ("cat", "dog", "<script>alert(1)</script>")
PLANNED = {"label": "dino", "seed": 0, "options": {}, "shared": {"fingerprint": "1"}}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def made_up_row(label: str, seed: int, score: float | None, **fields: Any) -> dict[str, Any]:
    trained = label != "random"
    images = 12_800 if trained else 0
    views = {"dino": 8, "random": 0}.get(label, 2)
    return {
        "label": label,
        "method": label if trained else None,
        "dataset": "made-up",
        "backbone": "resnet8",
        "seed": seed,
        "status": "done",
        "images_seen": images,
        "views_seen": images * views,
        "steps": images // 128,
        "batch_size": 128,
        "train_flops": 1.3e12 * views,
        "train_seconds": 10.0 * views,
        "images_per_second": images / (10 * views) if trained else None,
        "peak_memory_bytes": 3 * 2**28,
        "precision": "fp32",
        "threads": 2,
        "device": "cpu",
        "knn_top1": score,
        "knn_top5": score and min(score + 0.3, 1),
        "knn_by_k": {"1": score},
        "knn_k": score and 20,
        "knn_temperature": 0.07,
        "linear_top1": score and score + 0.03,
        "linear_top5": None,
        "linear_balanced_accuracy": score and score + 0.02,
        "map_at_r": score and score / 2,
        "rankme": 41.25,
        "feature_std": 0.043,
        "collapse_verdict": "healthy" if trained else None,
        "collapse_cause": None,
        "final_loss": 1.5 if trained else None,
        "encoder": "teacher" if label == "dino" else "online",
        "config_hash": "0123456789abcdef",
        "error": None,
    } | fields


def made_up_rows(labels: list[str], seeds: int) -> list[dict[str, Any]]:
    return [
        made_up_row(
            label, seed, SCORES.get(label, 0.5) + 0.004 * math.sin(5 * seed + len(label) + ord(label[0]))
        )
        for seed in range(seeds)
        for label in ["random", *labels]
    ]


def made_up_results(rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    bench = {
        "name": "A made-up bench",
        "dataset": "made-up",
        "backbone": "resnet8",
        "image_size": 32,
        "batch_size": 128,
        "budget": {"epochs": 3},
        "seeds": sorted({row["seed"] for row in rows}),
        "methods": [label for label in dict.fromkeys(row["label"] for row in rows) if label != "random"],
        "views": "recipe",
        "primary_metric": "knn_top1",
        "precision": "fp32",
        "device": "cpu",
        "threads": 2,
        "notes": [],
        "created": "2026-01-02T03:04:05",
        "version": "0.1.0",
    }
    return {"bench": bench | fields, "rows": rows}


def write_bench(folder: Path, results: dict[str, Any], cells: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    if cells:
        (folder / "plan.json").write_text(json.dumps({"cells": [PLANNED]}))
        (folder / "environment.json").write_text(json.dumps({"python": "3.11.0", "cpu": "an imaginary one"}))
        splits = {
            "pretrain": {"images": 11_520, "source": "train"},
            "test": {"images": 400, "labelled": True, "reads": 1},
        }
        (folder / "splits.json").write_text(json.dumps(splits))
        for row in results["rows"]:
            if row["label"] != "random":
                write_cell(folder / "cells" / f"{row['label']}-seed{row['seed']}", row)
        (folder / "bench.yaml").write_text("methods: [dino, byol]\ndataset: made-up\n")
        (folder / "results.csv").write_text("label,seed\n")
        thumbnails = np.random.default_rng(0).integers(0, 255, (64, 1600, 3), dtype=np.uint8)
        Image.fromarray(thumbnails).save(folder / "thumbnails.jpg")
    return folder


def write_cell(cell: Path, row: dict[str, Any]) -> None:
    cell.mkdir(parents=True)
    views = 8 if row["label"] == "dino" else 2
    with (cell / "metrics.jsonl").open("w") as file:
        for step in range(5, 101, 5):
            loss = 1.5 + views * math.exp(-step / 30) + 0.1 * math.sin(step + row["seed"])
            logged = {"step": step, "images_seen": 128 * step, "loss": loss, "lr": 0.1 * (1 - step / 100)}
            logged |= {"teacher_entropy": 7 - step / 50} if row["label"] == "dino" else {}
            if step % 20 == 0:
                score = 0.3 + 0.003 * step + 0.01 * row["seed"]
                logged |= {
                    "seconds": 0.1 * views * step,
                    "curve_knn_top1": score,
                    "curve_ridge_top1": score / 2,
                }
            file.write(json.dumps(logged) + "\n")
        file.write('{"step": 105, "images_se')  # as a killed process leaves it
    random = np.random.default_rng(row["seed"])
    noise = random.integers(60, 200, (8, views, 4, 4, 3), dtype=np.uint8)
    crops = noise.repeat(8, axis=2).repeat(8, axis=3)
    pixels = np.pad(crops, ((0, 0), (0, 0), (2, 0), (2, 0), (0, 0)), constant_values=255)
    Image.fromarray(pixels.transpose(0, 2, 1, 3, 4).reshape(8 * 34, views * 34, 3)).save(cell / "views.png")
    label = np.arange(60) % len(CLASSES)
    taken = np.where(random.random(60) < 0.3, (label + 1) % len(CLASSES), label)
    np.savez(cell / "predictions.npz", label=label, knn=taken, linear=label)
    places = {name: random.normal(size=(60, 2)) + 3 * label[:, None] for name in ("pca", "tsne")}
    np.savez(cell / "map.npz", index=np.arange(60), label=label, classes=np.array(CLASSES), **places)


class Page(HTMLParser):
    """What a browser would take from the page: texts, tags, headings and references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(folder: Path) -> Page:
    report = write_report(folder)
    assert report == folder / "report.html"
    return Page(report.read_text(encoding="utf-8"))


def terminal(results: dict[str, Any], width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(render_table(results))
    return console.file.getvalue()  # type: ignore[attr-defined]
