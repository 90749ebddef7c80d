"""What each term of the codes brings: the shares that `fit_codes` takes, and heads trained further.

    python benchmarks/codes_terms.py students/*/student --gallery gallery.csv --queries queries.csv \
        --out docs/codes-terms.csv

Trained heads go on from the closed form, on photos and their views, towards the same bits; beside these they
have the terms of Deep Hash Distillation: the cosine of a view's code and its photo's, bits near 1 and -1, and
centres of the gallery as proxies, whose codes stand for classes. `decoded` orders the best again by what the
codes say of the vectors, and not by the floats that they are the signs of.
"""

import argparse
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from codes import COLUMNS, RESCORED, Photos, Rows, fit_itq, open_students, print_means, project
from tables import read_table, write_table
from torch.nn import functional as F  # noqa: N812

from distill.model.codes import AGREEMENT, OWN, choose_bits, fit_codes
from index.evaluation.metrics import rank
from index.vectors import CODES, pack

BITS = (64, 256)
STEPS, BATCH, RATE = 600, 256, 3e-3
PROXIES, TEMPERATURE = 64, 0.2
# Weights of the bits, of the cosine, of bits near 1 and -1, of the proxies.
HEADS = {
    "trained: bits": (1.0, 0.0, 0.0, 0.0),
    "trained: bits, cosine": (1.0, 1.0, 0.0, 0.0),
    "trained: bits, quantization": (1.0, 0.0, 0.1, 0.0),
    "trained: bits, proxies": (1.0, 0.0, 0.0, 0.1),
    "trained: all": (1.0, 1.0, 0.1, 0.1),
}


def train_head(photos: Photos, bits: int, weights: tuple[float, ...]) -> tuple[Rows, Rows]:
    """Train a head on from the closed form with terms of such weights, and return a mean and axes."""
    torch.manual_seed(0)
    mean, start = fit_codes(photos.gallery, bits, photos.views)
    known = torch.from_numpy(photos.gallery - mean)
    views = torch.from_numpy(photos.views - mean)
    axes = torch.from_numpy(start / (photos.gallery @ start).std()).requires_grad_()
    target = torch.from_numpy(choose_bits(photos.gallery, bits)).float()
    clusters = faiss.Kmeans(known.shape[1], PROXIES, spherical=True, seed=0)
    clusters.train(photos.gallery)
    classes = torch.from_numpy(clusters.index.search(photos.gallery, 1)[1][:, 0])
    proxies = F.normalize(torch.stack([target[classes == i].sum(dim=0) for i in range(PROXIES)]).sign())
    optimizer = torch.optim.Adam([axes], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(views), (BATCH,))
        clean, seen = known[rows] @ axes, views[rows] @ axes
        terms = (
            F.softplus(-target[rows] * clean).mean() + F.softplus(-target[rows] * seen).mean(),
            1 - F.cosine_similarity(seen.tanh(), clean.tanh().detach()).mean(),
            (clean.tanh().abs() - 1).square().mean(),
            F.cross_entropy(F.normalize(clean.tanh()) @ proxies.T / TEMPERATURE, classes[rows]),
        )
        loss = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return mean, axes.detach().numpy()


def score_decoded(photos: Photos, bits: int, own: float) -> dict[str, float]:
    """Score codes whose best are ordered again by the vectors that a ridge regression makes of them."""
    mean, axes = fit_codes(photos.gallery, bits, photos.views, own)
    codes, asked = pack((photos.gallery - mean) @ axes), pack(project(photos.queries, mean, axes))
    signs = np.sign(project(photos.gallery, mean, axes))
    gram = signs.T @ signs + 0.01 * len(signs) * np.eye(bits, dtype=np.float32)
    decoder = np.linalg.solve(gram, signs.T @ (photos.gallery - mean))
    floats = ((photos.queries - mean) @ decoder.T).astype(np.float32)
    ranking = rank(CODES.similarity(asked, codes), None)
    first = ranking[:, :RESCORED]
    again = rank(np.take_along_axis(CODES.similarity(floats, codes), first, 1), None)
    ranking[:, :RESCORED] = np.take_along_axis(first, again, 1)
    return photos.score(ranking)


def main() -> None:
    """Fill the table, and print its means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("students", nargs="+", type=Path, help="student folders")
    parser.add_argument("--gallery", type=Path, required=True, help="path,label of the photos searched")
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    done = read_table(args.out)
    for name, photos in open_students(args, done):
        shares = [(OWN, weight) for weight in (0.0, 1.0, AGREEMENT, 8.0)]
        shares += [(own, AGREEMENT) for own in (0.0, 0.6, 1.0)] + [(1.0, 0.0)]
        for bits in BITS:
            fit = partial(fit_codes, photos.gallery, bits, photos.views)
            scores = {"ITQ": photos.score_codes(*fit_itq(photos.gallery, bits), RESCORED)}
            for own, agreement in shares:
                way = f"own {own}, agreement {agreement}"
                scores[way] = photos.score_codes(*fit(own, agreement), RESCORED)
            for own in (OWN, 0.6, 1.0):
                scores[f"own {own}, decoded"] = score_decoded(photos, bits, own)
            for way, weights in HEADS.items():
                scores[way] = photos.score_codes(*train_head(photos, bits, weights), RESCORED)
            for way, figures in scores.items():
                rounded = {column: f"{100 * figure:.2f}" for column, figure in figures.items()}
                done.append({"student": name, "searched": "all", "bits": str(bits), "way": way, **rounded})
        write_table(args.out, COLUMNS, done)
    print_means(done, ("bits", "way"))


if __name__ == "__main__":
    main()
