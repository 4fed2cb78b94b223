// LaTeX of answers as MathML: the part of LaTeX that answers to problems use. What it does not know stays as written.
// It makes elements and texts alone, never markup, and sets no attribute from an answer: no text can become more.

const MATHML = "http://www.w3.org/1998/Math/MathML";
// Longer or deeper formulas, and longer texts, stay as written.
const MATH_LIMITS = { characters: 4000, depth: 40, text: 20000 };

const pairs = (text) => new Map(text.trim().split(/\s+/).map((pair) => [pair.slice(0, -[...pair].pop().length), [...pair].pop()]));
const LETTERS = pairs(`alphaα betaβ gammaγ deltaδ epsilonϵ varepsilonε zetaζ etaη thetaθ iotaι kappaκ lambdaλ muμ nuν xiξ piπ rhoρ
  sigmaσ tauτ phiϕ varphiφ chiχ psiψ omegaω GammaΓ DeltaΔ ThetaΘ LambdaΛ XiΞ PiΠ SigmaΣ PhiΦ PsiΨ OmegaΩ infty∞ emptyset∅
  varnothing∅ ellℓ`);
const SIGNS = pairs(`times× cdot⋅ div÷ pm± mp∓ le≤ leq≤ leqslant≤ ge≥ geq≥ geqslant≥ ne≠ neq≠ approx≈ equiv≡ cong≅ sim∼ in∈ notin∉ subset⊂
  subseteq⊆ cup∪ cap∩ setminus∖ to→ rightarrow→ longrightarrow⟶ leftarrow← Rightarrow⇒ implies⟹ iff⟺ Leftrightarrow⇔ mapsto↦
  ldots… dots… cdots⋯ circ∘ degree° angle∠ perp⊥ parallel∥ mid∣ nmid∤ triangle△ forall∀ exists∃ neg¬ land∧ wedge∧ lor∨ vee∨ sum∑ prod∏
  int∫ partial∂ nabla∇ lfloor⌊ rfloor⌋ lceil⌈ rceil⌉ langle⟨ rangle⟩ lbrace{ rbrace} lvert| rvert| vert| prime′ star⋆ ast∗ therefore∴
  because∵ checkmark✓ propto∝ ll≪ gg≫ backslash\\ bullet• oplus⊕ otimes⊗ square□ blacksquare■ Box□`);
const FUNCTIONS = new Set(`sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp max min gcd lcm lim det dim deg arg sup inf
  mod bmod`.trim().split(/\s+/));
const TEXTS = new Set("text mbox textbf textit textrm mathrm mathbf mathit mathsf mathcal mathbb operatorname hbox bm boldsymbol".split(" "));
const DOUBLE_STRUCK = new Map([..."RNZQCP"].map((letter, place) => [letter, [..."ℝℕℤℚℂℙ"][place]]));
const ACCENTS = pairs("hat^ widehat^ bar¯ overline¯ vec→ overrightarrow→ dot˙ tilde~ widetilde~");
const SPACES = new Map([[",", 0.17], [":", 0.22], [";", 0.28], [" ", 0.25], ["!", 0], ["quad", 1], ["qquad", 2], ["~", 0.25]]);
const BRACKETS = new Map([["pmatrix", "()"], ["bmatrix", "[]"], ["vmatrix", "||"], ["Bmatrix", "{}"], ["cases", ["{", ""]]]);
const NOTHING = new Set("displaystyle textstyle limits nolimits big Big bigg Bigg bigl bigr Bigl Bigr middle hline tag notag nonumber".split(" "));

function element(tag, ...children) {
  const node = document.createElementNS(MATHML, tag);
  node.append(...children);
  return node;
}

class Latex {
  constructor(text) {
    if (text.length > MATH_LIMITS.characters) throw new RangeError("long");
    this.tokens = text.match(/\\(?:[A-Za-z]+\*?|[^])|\d+(?:\.\d+)?|\s+|[^]/gu) ?? [];
    [this.place, this.depth] = [0, 0];
  }

  get next() { return this.tokens[this.place]; }

  // The elements up to one of these tokens, which is taken too, or to the end of the text.
  readUntil(...ends) {
    if (++this.depth > MATH_LIMITS.depth) throw new RangeError("deep");
    const row = [];
    while (this.place < this.tokens.length && !ends.includes(this.next)) {
      const node = this.readScripts();
      if (node) row.push(node);
    }
    this.place += 1;
    this.depth -= 1;
    return row;
  }

  // An atom with what is below and above it.
  readScripts() {
    const signs = { "_": null, "^": null };
    let base = this.next in signs ? element("mrow") : this.readAtom();
    while (this.next in signs || this.next === "'") {
      const sign = this.tokens[this.place++];
      signs[sign === "'" ? "^" : sign] = sign === "'" ? element("mo", "′") : this.readArgument();
    }
    const { _: low, "^": high } = signs;
    if (!low && !high) return base;
    base = base ?? element("mrow");
    const around = ["∑", "∏", "lim", "max", "min"].includes(base.textContent);
    const tag = low && high ? ["msubsup", "munderover"] : low ? ["msub", "munder"] : ["msup", "mover"];
    return element(tag[Number(around)], base, ...[low, high].filter(Boolean));
  }

  // In \frac12 and x^12 only the first digit belongs to the command.
  readArgument() {
    while (/^\s/.test(this.next ?? "")) this.place += 1;
    if (/^\d./.test(this.next ?? "")) this.tokens.splice(this.place, 1, this.next[0], this.next.slice(1));
    return this.readAtom() ?? element("mrow");
  }

  // The text in the next braces, as written.
  readText() {
    while (/^\s/.test(this.next ?? "")) this.place += 1;
    if (this.next !== "{") return this.tokens[this.place++] ?? "";
    const start = ++this.place;
    for (let depth = 1; this.place < this.tokens.length; this.place += 1) {
      depth += { "{": 1, "}": -1 }[this.next] ?? 0;
      if (!depth) break;
    }
    return this.tokens.slice(start, this.place++).join("");
  }

  readAtom() {
    const token = this.tokens[this.place++];
    if (token === undefined || /^\s|^&$/.test(token)) return null;
    if (token === "{") return element("mrow", ...this.readUntil("}"));
    if (token === "-") return element("mo", "−");
    if (token[0] !== "\\") return element(/^\d/.test(token) ? "mn" : /\p{L}/u.test(token) ? "mi" : "mo", visible(token));
    return this.readCommand(token.slice(1));
  }

  readCommand(name) {
    if (LETTERS.has(name)) return element("mi", LETTERS.get(name));
    if (SIGNS.has(name)) return element("mo", SIGNS.get(name));
    if (FUNCTIONS.has(name)) return element("mi", name);
    if (NOTHING.has(name) || name === "\\") return null;
    if (SPACES.has(name)) {
      const space = element("mspace");
      space.setAttribute("width", `${SPACES.get(name)}em`);
      return space;
    }
    if (TEXTS.has(name)) {
      const text = this.readText();
      return element(name === "operatorname" ? "mi" : "mtext", visible(name === "mathbb" ? DOUBLE_STRUCK.get(text) ?? text : text));
    }
    if (/^[dtc]?frac$/.test(name)) return element("mfrac", this.readArgument(), this.readArgument());
    if (/^[dt]?binom$/.test(name)) return this.readBinomial();
    if (name === "sqrt") return this.readRoot();
    if (name === "boxed" || name === "fbox") {
      const box = element("mrow", this.readArgument());
      box.setAttribute("class", "boxed");
      return box;
    }
    if (ACCENTS.has(name)) return element("mover", this.readArgument(), element("mo", ACCENTS.get(name)));
    if (name === "underline") return element("munder", this.readArgument(), element("mo", "_"));
    if (name === "left" || name === "right") return this.readFence();
    if (name === "begin") return this.readTable(this.readText());
    if (name === "pmod") return element("mrow", element("mo", "("), element("mi", "mod"), element("mspace"), this.readArgument(), element("mo", ")"));
    if (/^[{}$%#&_|]$/.test(name)) return element("mo", name === "|" ? "‖" : name);
    return element("mtext", visible(`\\${name}`));
  }

  readBinomial() {
    const rows = [this.readArgument(), this.readArgument()].map((cell) => element("mtr", element("mtd", cell)));
    return element("mrow", element("mo", "("), element("mtable", ...rows), element("mo", ")"));
  }

  readRoot() {
    if (this.next !== "[") return element("msqrt", this.readArgument());
    this.place += 1;
    const degree = element("mrow", ...this.readUntil("]"));
    return element("mroot", this.readArgument(), degree);
  }

  readFence() {
    const token = this.tokens[this.place++] ?? ".";
    return token === "." ? null : token[0] === "\\" ? this.readCommand(token.slice(1)) : element("mo", visible(token));
  }

  readTable(name) {
    const kind = name.replace("*", "");
    if (kind === "array" || kind === "tabular") this.readText();
    const [rows, ends] = [[[]], ["&", "\\\\", "\\end"]];
    while (this.place < this.tokens.length) {
      rows[rows.length - 1].push(element("mtd", ...this.readUntil(...ends)));
      const end = this.tokens[this.place - 1];
      if (end === "\\end") break;
      if (end === "\\\\") rows.push([]);
    }
    this.readText();
    const table = element("mtable", ...rows.map((cells) => element("mtr", ...cells)));
    const [open, close] = BRACKETS.get(kind) ?? ["", ""];
    return element("mrow", element("mo", open), table, element("mo", close));
  }
}

// Formulas of a text: between dollars or their brackets, and boxes outside them, up to the brace that closes them.
const FORMULA = /\$\$([^$]+)\$\$|\\\[([^]+?)\\\]|(?<![\\$])\$((?:\\[^]|[^$\\\n])+)\$|\\\(([^\n]+?)\\\)/u;
const BOX = /\\(?:boxed|fbox)\s*\{/;

function findBox(text) {
  const start = text.search(BOX);
  if (start < 0) return null;
  let depth = 0;
  for (let place = text.indexOf("{", start); place < text.length; place += 1) {
    depth += { "{": 1, "}": -1 }[text[place]] ?? 0;
    if (!depth) return { start, end: place + 1, inner: text.slice(start, place + 1) };
  }
  return null;
}

function findFormula(text) {
  const match = FORMULA.exec(text);
  const found = match && { start: match.index, end: match.index + match[0].length, inner: match.slice(1).find((each) => each !== undefined) };
  const box = findBox(text);
  return box && !(found && found.start < box.end) ? box : found;
}

function formula(latex, written = latex) {
  try {
    return element("math", ...new Latex(latex).readUntil());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return visible(written);
  }
}

// The nodes of a text with its mathematics typeset.
function typeset(text) {
  const nodes = [];
  let rest = text;
  if (text.length > MATH_LIMITS.text) return [visible(text)];
  for (let found = findFormula(rest); found; found = findFormula(rest)) {
    nodes.push(visible(rest.slice(0, found.start)), formula(found.inner, rest.slice(found.start, found.end)));
    rest = rest.slice(found.end);
  }
  return [...nodes, visible(rest)];
}
