"""Exact search: faiss, torch and brute force agree."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from ssl_zoo.evaluation import search


def brute_force(queries, bank, k):
    products = queries.double() @ bank.double().T
    rows = [sorted(range(len(bank)), key=lambda j, row=row: (-row[j], j))[:k] for row in products.tolist()]
    return torch.tensor(rows)


@pytest.mark.parametrize("backend", ["auto", "faiss", "torch"])
@pytest.mark.parametrize("k", [1, 7, 150, 300])
def test_search_orders_by_score_then_index_even_across_the_border(backend, k):
    # products of small integers are exact in float32, and tie very often
    queries, bank = torch.randint(-2, 3, (40, 4)).float(), torch.randint(-2, 3, (300, 4)).float()
    scores, index = search(queries, bank, k, backend=backend)
    expected = brute_force(queries, bank, k)
    assert torch.equal(index, expected)
    assert torch.equal(scores, (queries @ bank.T).gather(1, expected))
    assert (scores.dtype, index.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_search_keeps_the_first_of_a_bank_of_equal_rows(backend, monkeypatch):
    monkeypatch.setattr(sys.modules["ssl_zoo.evaluation.search"], "_CHUNK_SCORES", 1)  # 32 queries at once
    _, index = search(torch.ones(70, 5), torch.ones(2000, 5), 10, backend=backend)
    assert torch.equal(index, torch.arange(10).expand(70, 10))


def test_search_backends_agree_and_do_not_depend_on_chunks(monkeypatch):
    queries, bank = torch.randn(150, 32), torch.randn(400, 32)
    scores, index = search(queries, bank, 20, backend="faiss")
    for name in ("_CHUNK_SCORES", "_FAISS_ROWS"):
        monkeypatch.setattr(sys.modules["ssl_zoo.evaluation.search"], name, 64)
    for backend in ("faiss", "torch"):
        other, same = search(queries, bank, 20, backend=backend)
        assert torch.equal(index, same)
        torch.testing.assert_close(scores, other)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_bank_searched_part_by_part_gives_the_same_ties_included(backend, monkeypatch):
    queries, bank = torch.randint(-2, 3, (40, 4)).float(), torch.randint(-2, 3, (300, 4)).float()
    expected = brute_force(queries, bank, 11)
    monkeypatch.setattr(
        sys.modules["ssl_zoo.evaluation.search"], "_BANK_BYTES", 70 * 16
    )  # 70 rows, 20 at last
    scores, index = search(queries, bank, 11, backend=backend)
    assert torch.equal(index, expected)
    assert torch.equal(scores, (queries @ bank.T).gather(1, expected))


def test_cosine_is_the_inner_product_of_unit_vectors():
    queries, bank = torch.randn(30, 8), 3 * torch.randn(90, 8)
    scores, index = search(queries, bank, 5, cosine=True)
    expected, same = search(F.normalize(queries), F.normalize(bank), 5)
    assert torch.equal(index, same)
    assert torch.equal(scores, expected)


_BOUNDED = """
import re, sys
import torch
from ssl_zoo.evaluation import features, search
from ssl_zoo.evaluation.collapse import feature_std
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
torch.set_num_threads(1)
features._MAPPED_BYTES = 0
bank = features._empty(400_000, 256)
for part in bank.split(50_000):
    part.normal_()
search(bank[:64].clone(), bank[:1000].clone(), 5, cosine=True)
before, most = anonymous(), 0
search_module = sys.modules["ssl_zoo.evaluation.search"]
ordered = search_module._ordered
def watched(*arguments):
    global most
    found = ordered(*arguments)
    most = max(most, anonymous())
    return found
search_module._ordered = watched
_, index = search(bank[:64].clone(), bank, 5, cosine=True)
assert torch.equal(index[:, 0], torch.arange(64))
print(most - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_mapped_bank_need_not_fit_into_memory(tmp_path):
    command = [sys.executable, "-c", _BOUNDED]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SSL_ZOO_CACHE": str(tmp_path)},
    )
    assert float(done.stdout) < 300  # MiB: of a bank of 391, two parts of 64 as they are and in an index
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_row_finds_itself_and_no_query_finds_nothing(backend):
    x = F.normalize(torch.randn(200, 16))
    scores, index = search(x, x, 1, backend=backend)
    assert torch.equal(index.squeeze(1), torch.arange(200))
    torch.testing.assert_close(scores.squeeze(1), torch.ones(200))
    assert search(x[:0], x, 3, backend=backend)[1].shape == (0, 3)


def test_search_falls_back_to_torch_where_faiss_is_missing_or_clashes(monkeypatch):
    x = torch.randn(30, 4)
    expected = search(x, x, 5)[1]
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import would fail
    monkeypatch.setattr(sys, "platform", "darwin")
    assert torch.equal(search(x, x, 5)[1], expected)


_KERNELS = {"AVX2": "Haswell", "AVX512": "SkylakeX"}.get(torch.backends.cpu.get_cpu_capability())
_ASK = """
import os
import torch
from threadpoolctl import threadpool_info
from ssl_zoo.evaluation.retrieval import map_at_r
map_at_r(torch.rand(4, 3), torch.tensor([0, 0, 1, 1]))
libraries = [library for library in threadpool_info() if "faiss" in library["filepath"]]
print(*(library["architecture"] for library in libraries if library["internal_api"] == "openblas"))
print(os.environ.get("OPENBLAS_CORETYPE"))
"""


@pytest.mark.skipif(_KERNELS is None, reason="an x86 CPU alone has several kernels")
def test_faiss_multiplies_with_the_kernels_of_this_cpu():
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    asked = subprocess.run([sys.executable, "-c", _ASK], env=env, check=True, capture_output=True, text=True)
    assert asked.stdout.split() == [_KERNELS, "None"]


@pytest.mark.parametrize(
    ("queries", "bank", "options", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 5}, "from 1 to 4"),
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 0}, "from 1 to 4"),
        (torch.zeros(2, 3), torch.zeros(4, 2), {"k": 1}, "3 numbers wide, the bank 2"),
        (torch.zeros(2, 3, 1), torch.zeros(4, 3), {"k": 1}, r"\[N, D\]"),
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 1, "backend": "fais"}, "allowed: auto, faiss, torch"),
    ],
)
def test_search_refuses_what_has_no_answer(queries, bank, options, message):
    with pytest.raises(ValueError, match=message):
        search(queries, bank, **options)
