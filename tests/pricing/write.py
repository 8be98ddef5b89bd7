"""Writes the cost tables into the README and docs/costs.md: `python -m tests.pricing.write`.

Each stands between `<!-- costs: NAME -->` and `<!-- costs: end -->`; the rest of a page is left alone.
"""

import re
from pathlib import Path

from chalicelib.pricing import markdown
from chalicelib.pricing.scenarios import report

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "costs.md", ROOT / "docs" / "copies.md")
_BLOCK = re.compile(r"(<!-- costs: (\w+) -->\n).*?(<!-- costs: end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """By name, what stands between the marks."""
    article = report("article")
    return {
        "article": markdown.article(article),
        "sizes": markdown.sizes(),
        "copies": markdown.copies(),
        "summary": markdown.summary(),
        "peers": markdown.peers(article),
        "resting": markdown.resting(),
        "prices": markdown.price_list(),
    }


def written(page: str) -> str:
    """The page with every block as it should be. Raises KeyError for a name that there is not."""
    made = tables()
    return _BLOCK.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", page)


def blocks(page: str) -> list[str]:
    """Names of the blocks on a page."""
    return [match[2] for match in _BLOCK.finditer(page)]


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text()))
        print(f"{path.relative_to(ROOT)}: {', '.join(blocks(path.read_text()))}")
