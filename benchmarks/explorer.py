"""How heavy the explorer's page is, and how soon it shows.

    python -m benchmarks.explorer [--quick] [--model folder] [--out page.html]

The best 500 features of SmolLM2-135M-Instruct with Top-K SAEs at all 30 layers (1,152 features each, k 32, random
weights: they fire in every text, so that no card is empty), searched over pairs of prompts, read in 200 plain texts.
`megabytes` is the file's size (goal: 10), `first_paint_ms` the median over fresh pages in Chromium of the time until
something of it shows (goal: 1,000), `card_ms` of that until the first feature's card with its contexts can be seen,
and `sort_ms` the longest of several sorts of the list.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import median

import saereason as sr
from saereason.explorer import Explorer
from saereason.tasks import discovery_task

from ._saes import random_sae

ROUNDS = 5
PAINTED = "performance.getEntriesByName('first-contentful-paint')"
SORTED = """(button) => {
  const start = performance.now();
  button.click();
  return new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))));
}"""


def page(model_name: str, path: Path, n: int, d_sae: int, n_texts: int | None) -> Path:
    """The page of the best `n` features."""
    model = sr.load_model(model_name)
    saes = {layer: random_sae(model, layer, "topk", d_sae, min(32, d_sae // 4)) for layer in range(model.n_layers)}
    task = discovery_task(None, n=16)
    pairs = sr.Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))
    table = sr.search(model, saes, pairs, block=path.parent / "block")
    texts = None if n_texts is None else [f"{number} and what follows from it" for number in range(n_texts)]
    explorer = sr.explore(model, saes, table, texts=texts, block=path.parent / "block")
    assert isinstance(explorer, Explorer)
    return explorer.to_html(path, n=n)


def opened(path: Path, chromium: str) -> dict[str, float]:
    """What a reader waits for, in milliseconds."""
    from playwright.sync_api import sync_playwright

    paints, cards, sorts = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(ROUNDS):
            with browser.new_context(viewport={"width": 1200, "height": 844}) as context:
                look = context.new_page()
                look.goto(path.absolute().as_uri(), timeout=120_000)
                look.wait_for_selector(".card .context", timeout=60_000)
                look.wait_for_function(f"() => {PAINTED}.length", timeout=60_000)
                cards.append(look.evaluate("performance.now()"))
                paints.append(look.evaluate(f"{PAINTED}[0].startTime"))
                for button in look.locator("[role=columnheader] button").all():
                    sorts.append(button.evaluate(SORTED))
        browser.close()
    return {"first_paint_ms": median(paints), "card_ms": median(cards), "sort_ms": max(sorts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/explorer/page.html"), help="file for the page")
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium on the PATH; install it (Debian: apt-get install chromium).")
    n, d_sae, n_texts = (20, 64, 8) if asked.quick else (500, 1152, None)
    path = page(asked.model, asked.out, n, d_sae, n_texts)
    print(json.dumps({"megabytes": round(path.stat().st_size / 1e6, 2), **opened(path, chromium), "page": str(path)}))


if __name__ == "__main__":
    main()
