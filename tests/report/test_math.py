"""Mathematics of answers in a browser: typeset where it is known, as written elsewhere, harmless whatever it is."""

import random

import pytest

from helpers.browser import find_browser, open_browser
from helpers.experiments import small
from helpers.hostile_texts import CONTROLS
from helpers.report_runs import HOSTILE, make_run
from nft_jax.report.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_browser(), reason="no Chromium to open the page in")]

# The tags and texts of what a text is typeset as, without the elements that only hold others.
SHOW = """text => {
  const inside = node => [...node.childNodes].map(show).join(" ");
  const show = node => node.nodeType === 3 ? node.data : `${node.localName}(${inside(node)})`;
  return typeset(text).map(node => typeof node === "string" ? node : show(node)).filter(each => each !== "").join("|");
}"""
# Elements and attributes that a text gives; errors are reported by the page.
TRY = """texts => {
  const [tags, names] = [new Set(), new Set()];
  for (const text of texts) {
    const box = document.createElement("div");
    box.append(...typeset(text), ...(reading.typeset ? [] : [formula(text)]));
    document.body.append(box);
    for (const node of box.querySelectorAll("*")) {
      tags.add(`${node.namespaceURI.split("/").pop()} ${node.localName}`);
      for (const { name, value } of node.attributes) names.add(`${name}=${value}`);
    }
    box.remove();
  }
  return [[...tags], [...names]];
}"""
PIECES = (
    *(
        r"\frac",
        r"\sqrt",
        r"\boxed{",
        r"\text{",
        r"\left",
        r"\right",
        r"\begin{cases}",
        r"\begin{constructor}",
        r"\end{",
    ),
    *(r"\href{javascript:alert(1)}", r"\class{x}", r"\style{color:red}", r"\constructor", r"\__proto__", r"\mathbb{"),
    *(
        "{",
        "}",
        "$",
        "$$",
        r"\[",
        r"\]",
        r"\(",
        r"\)",
        "^",
        "_",
        "&",
        "\\\\",
        "\\",
        "'",
        "[",
        "]",
        "%",
        "#",
        "x",
        "12.5",
        " ",
        "\n",
    ),
    *(
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(1)</script>",
        "&lt;",
        "<math href='javascript:alert(1)'>",
    ),
    *CONTROLS,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("playwright", reason="no Playwright to drive Chromium: pip install -e .[browser]")
    path = write_page(make_run(tmp_path_factory.mktemp("run")), small(), None, b"<svg></svg>")
    with open_browser() as browser:
        opened, errors = browser.new_page(), []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("dialog", lambda dialog: errors.append(dialog.message))
        opened.goto(path.as_uri())
        yield opened
        assert errors == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no mathematics, 5 < 6", "no mathematics, 5 < 6"),
        (r"so $\frac{1}{2}$.", "so |math(mfrac(mrow(mn(1)) mrow(mn(2))))|."),
        (r"\boxed{x^2_1}", "math(mrow(mrow(msubsup(mi(x) mn(1) mn(2)))))"),
        (r"\boxed{\sqrt[3]{a'}}", "math(mrow(mrow(mroot(mrow(msup(mi(a) mo(′))) mrow(mn(3))))))"),
        (
            r"\[\sum_{i}^n \alpha\le\text{all of them}\]",
            "math(munderover(mo(∑) mrow(mi(i)) mi(n)) mi(α) mo(≤) mtext(all of them))",
        ),
        ("$-1$", "math(mo(−) mn(1))"),
        (r"$\frac12^34$", "math(msup(mfrac(mn(1) mn(2)) mn(3)) mn(4))"),
        (r"\(\left(1\right.\)", "math(mo(() mn(1))"),
        (
            r"$$\begin{pmatrix}1&2\\3&4\end{pmatrix}$$",
            "math(mrow(mo(() mtable(mtr(mtd(mn(1)) mtd(mn(2))) mtr(mtd(mn(3)) mtd(mn(4)))) mo())))",
        ),
        (r"$x\foo y$", "math(mi(x) mtext(\\foo) mi(y))"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("costs $5", "costs $5"),
        ("$" + "{" * 60 + "$", "$" + "{" * 60 + "$"),
        ("$" + "x" * 5000 + "$", "$" + "x" * 5000 + "$"),
    ],
)
def test_formulas_are_typeset_and_what_is_unknown_stays_as_written(page, text, shown):
    assert page.evaluate(SHOW, text) == shown


def test_hostile_mathematics_stays_text(page):
    seed = 20
    draw = random.Random(seed)
    print(f"seed {seed}")
    texts = ["".join(draw.choices(PIECES, k=draw.randint(1, 30))) for _ in range(2000)]
    tags, names = page.evaluate(TRY, [*texts, *(f"${text}$" for text in texts), HOSTILE])
    known = "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd"
    assert set(tags) <= {f"MathML {name}" for name in known.split()} and "MathML mfrac" in tags
    assert {name for name in names if not name.startswith("width=")} == {"class=boxed"}


def test_typeset_is_a_key_away_and_tokens_are_back(page):
    page.evaluate(r"shown[selected].answers[0] = 'is $\\frac12$ <b>'; drawGroup()")
    assert page.query_selector(".token") and not page.query_selector("#answers math")
    page.keyboard.press("t")
    assert page.text_content("#answers math") == "12" and not page.query_selector(".token")
    assert "<b>" in page.inner_text("#answers")
    page.keyboard.press("t")
    assert page.query_selector(".token") and not page.query_selector("math")
