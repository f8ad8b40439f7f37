// What HTML and htmx do not do: tooltips that stay in the window, and the policy editor.
"use strict";

// Tooltips of variables: beside the word, inside the window.

function placeTip(event) {
  const variable = event.target.closest?.(".variable");
  const tip = variable?.querySelector(".tip");
  if (!tip) return;
  const word = variable.getBoundingClientRect();
  const width = Math.min(512, window.innerWidth - 16);
  tip.setAttribute("data-placed", "");
  const left = Math.max(8, Math.min(word.left, window.innerWidth - Math.min(width, tip.offsetWidth || width) - 8));
  const isBelow = word.bottom + (tip.offsetHeight || 0) + 8 < window.innerHeight;
  tip.style.setProperty("left", `${left}px`);
  tip.style.setProperty("top", isBelow ? `${word.bottom + 4}px` : `${word.top - tip.offsetHeight - 4}px`);
}

document.addEventListener("mouseover", placeTip);
document.addEventListener("focusin", placeTip);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (document.activeElement?.classList.contains("variable")) document.activeElement.blur();
    document.querySelectorAll(".variable:hover").forEach((word) => {
      word.classList.add("closed");
      word.addEventListener("mouseleave", () => word.classList.remove("closed"), { once: true });
    });
  }
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "")) {
    const search = document.getElementById("search-text");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
});

// A call lights up the lines of the policy that decided it.

function lightLines(event, isLit) {
  const call = event.target.closest?.("details[data-lines]");
  for (const line of (call?.dataset.lines ?? "").split(" ").filter(Boolean)) {
    document.getElementById(`policy-${line}`)?.classList.toggle("lit", isLit);
  }
}

for (const [name, isLit] of [["mouseover", true], ["focusin", true], ["mouseout", false], ["focusout", false]]) {
  document.addEventListener(name, (event) => lightLines(event, isLit));
}

// Step by step through a graph's run: the node of the step lights up in the drawing.

function showStep(link) {
  const run = link.closest(".run");
  run.querySelectorAll(".lit").forEach((part) => part.classList.remove("lit"));
  link.classList.add("lit");
  for (const vertex of run.querySelectorAll("svg [data-key]")) {
    vertex.classList.toggle("lit", vertex.dataset.key === link.dataset.key);
  }
}

function moveStep(run, distance) {
  const links = [...run.querySelectorAll(".steps a")];
  const current = links.findIndex((link) => link.classList.contains("lit"));
  const link = links[Math.max(0, Math.min(links.length - 1, current + distance))];
  if (link) {
    showStep(link);
    link.scrollIntoView({ block: "nearest", inline: "nearest" });
    tell(`Step ${links.indexOf(link) + 1} of ${links.length}: ${link.textContent}`);
  }
}

document.addEventListener("focusin", (event) => {
  const link = event.target.closest?.(".steps a");
  if (link) showStep(link);
});
document.addEventListener("mouseover", (event) => {
  const link = event.target.closest?.(".steps a");
  if (link) showStep(link);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-step]");
  if (button) moveStep(button.closest(".run"), Number(button.dataset.step));
});

// A link to a call opens it.

function openTarget() {
  const details = document.getElementById(location.hash.slice(1))?.querySelector(":scope > details");
  if (details) details.open = true;
}

window.addEventListener("hashchange", openTarget);
openTarget();

// Text that is selected stays as it is. Fields that are typed in are preserved (`hx-preserve`).

document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.target;
  const isNews = event.detail.requestConfig?.triggeringEvent?.type?.startsWith("sse:");
  if (!isNews) return;
  if (window.getSelection()?.type === "Range" && part.contains(window.getSelection().anchorNode)) event.preventDefault();
});

// Nothing is replaced under a pressed pointer, because its click would be lost.

let isPressed = false;
let lateParts = new Set();
for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => {
    isPressed = event.buttons > 0 && name !== "pointercancel";
    if (!isPressed && lateParts.size) setTimeout(loadLateParts);
  }, true);
}

function loadLateParts() {
  const parts = [...lateParts].filter((part) => part.isConnected);
  lateParts = new Set();
  for (const part of parts) htmx.trigger(part, /sse:\w+/.exec(part.getAttribute("hx-trigger"))[0]);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, triggeringEvent } = event.detail.requestConfig;
  if (isPressed && triggeringEvent?.type?.startsWith("sse:")) {
    event.detail.shouldSwap = false;
    lateParts.add(elt);
  }
});

// Open parts stay open when a page is loaded again.

let openParts = new Set();
document.addEventListener("htmx:beforeSwap", (event) => {
  openParts = new Set([...event.detail.target.querySelectorAll("li[id] > details")].filter((d) => d.open).map((d) => d.parentElement.id));
});
document.addEventListener("htmx:afterSwap", () => {
  for (const id of openParts) {
    const details = document.getElementById(id)?.querySelector(":scope > details");
    if (details) details.open = true;
  }
  openParts = new Set();
});

// An error of the server is told, and nothing on the page is replaced.

document.addEventListener("htmx:responseError", (event) => {
  let message = `The server answered with ${event.detail.xhr.status}.`;
  try {
    const body = JSON.parse(event.detail.xhr.responseText);
    message = body.error?.message ?? body.detail ?? message;
  } catch {
    // not JSON
  }
  tell(String(message), true);
});
document.addEventListener("htmx:sendError", () => tell("The server cannot be reached.", true));

// The stream of events ends when the server stops, or when the login does.

let isAway = false;
let isAwayTold = false;

document.addEventListener("htmx:sseError", async () => {
  isAway = true;
  const reply = await fetch("/console/approvals", { headers: { "HX-Request": "true" } }).catch(() => null);
  if (!isAway || reply?.ok) return;
  isAwayTold = true;
  tell(reply ? "You are logged out, or the server was started again. Open the console again." : "The server cannot be reached. The page shows what it knew before.", true, true);
});
document.addEventListener("htmx:sseOpen", () => {
  isAway = false;
  if (isAwayTold) tell("The server is back.");
  isAwayTold = false;
  // What happened between the page and the stream, or while the server was away, was not told.
  for (const part of document.querySelectorAll("[hx-trigger^='sse:']")) {
    htmx.trigger(part, /sse:\w+/.exec(part.getAttribute("hx-trigger"))[0]);
  }
});

function tell(message, isProblem = false, stays = false) {
  const status = document.getElementById("status");
  if (!status) return;
  status.textContent = message;
  status.className = isProblem ? "problem told" : "told";
  clearTimeout(tell.timer);
  if (!stays) tell.timer = setTimeout(() => { status.className = "unseen"; }, 6000);
}

// The policy editor

const text = document.getElementById("policy-text");

if (text) {
  const colours = document.getElementById("policy-colours");
  const list = document.getElementById("completions");
  const paper = text.closest(".paper");
  let words = { tools: {}, labels: [], words: [] };
  let matches = [];
  let chosen = 0;

  const showColours = () => {
    const coloured = document.getElementById("coloured");
    // Only if nothing was typed since; until then the text is shown without colours.
    const isSame = coloured && coloured.textContent.replace(/\n$/, "") === text.value.replace(/\n$/, "");
    paper.classList.toggle("coloured", Boolean(isSame));
    colours.replaceChildren();
    if (isSame) colours.append(...[...coloured.childNodes].map((node) => node.cloneNode(true)), "\n");
    scroll();
  };
  const scroll = () => {
    colours.scrollTop = text.scrollTop;
    colours.scrollLeft = text.scrollLeft;
  };
  text.addEventListener("scroll", scroll);
  text.addEventListener("input", () => { showColours(); complete(false); });
  document.addEventListener("htmx:afterSwap", showColours);
  showColours();

  fetch(document.getElementById("editor").dataset.words, { headers: { "HX-Request": "true" } })
    .then((reply) => (reply.ok ? reply.json() : words))
    .then((loaded) => { words = loaded; });

  // What can stand at the caret: in quotes after `tool` tools, in other quotes labels, elsewhere
  // words and the arguments of the tool whose block it is.
  function candidates() {
    const before = text.value.slice(0, text.selectionStart);
    const line = before.slice(before.lastIndexOf("\n") + 1);
    const quoted = /"([^"]*)$/.exec(line.replace(/"[^"]*"/g, (whole) => "_".repeat(whole.length)));
    if (quoted) {
      const prefix = quoted[1];
      const isTool = /tool\s*$/.test(line.slice(0, line.length - prefix.length - 1));
      return { prefix, names: isTool ? Object.keys(words.tools) : words.labels };
    }
    const prefix = /[A-Za-z_][\w]*$/.exec(line)?.[0] ?? "";
    const tool = [...before.matchAll(/tool\s+"([^"]+)"/g)].pop()?.[1];
    const own = (tool && words.tools[tool]) || [];
    return { prefix, names: [...own, ...words.words] };
  }

  function complete(isAsked) {
    const { prefix, names } = candidates();
    matches = prefix || isAsked ? names.filter((name) => name.toLowerCase().startsWith(prefix.toLowerCase()) && name !== prefix).slice(0, 12) : [];
    chosen = 0;
    showMatches(prefix);
  }

  function showMatches(prefix = "") {
    list.replaceChildren(...matches.map((name, index) => {
      const item = document.createElement("li");
      item.id = `completion-${index}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(index === chosen));
      item.textContent = name;
      item.addEventListener("mousedown", (event) => { event.preventDefault(); chosen = index; take(); });
      return item;
    }));
    list.hidden = !matches.length;
    text.setAttribute("aria-expanded", String(!list.hidden));
    if (list.hidden) text.removeAttribute("aria-activedescendant");
    else text.setAttribute("aria-activedescendant", `completion-${chosen}`);
    const before = text.value.slice(0, text.selectionStart).split("\n");
    const column = before[before.length - 1].length - prefix.length;
    list.style.setProperty("top", `${11 + before.length * 19.5 - text.scrollTop}px`);
    list.style.setProperty("left", `${Math.min(11 + column * 7.83 - text.scrollLeft, paper.clientWidth - 160)}px`);
  }

  function take() {
    const { prefix } = candidates();
    const name = matches[chosen];
    matches = [];
    list.hidden = true;
    text.setAttribute("aria-expanded", "false");
    text.setRangeText(name, text.selectionStart - prefix.length, text.selectionStart, "end");
    text.dispatchEvent(new Event("input", { bubbles: true }));
    matches = [];
    showMatches();
  }

  text.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      complete(true);
    } else if (!list.hidden && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : matches.length - 1)) % matches.length;
      showMatches(candidates().prefix);
    } else if (!list.hidden && event.key === "Enter") {
      event.preventDefault();
      take();
    } else if (!list.hidden && event.key === "Escape") {
      event.preventDefault();
      matches = [];
      showMatches();
    }
  });
  text.addEventListener("blur", () => { matches = []; showMatches(); });

  document.addEventListener("click", (event) => {
    const place = event.target.closest?.("[data-line]");
    if (place && place.closest(".findings")) {
      const lines = text.value.split("\n");
      const line = Number(place.dataset.line);
      const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0) + Number(place.dataset.column) - 1;
      text.focus();
      text.setSelectionRange(start, start);
      text.scrollTop = Math.max(0, line * 19.5 - 150);
    }
    if (event.target.closest?.("[data-copy]")) {
      const quoted = text.value.replaceAll("\\", "\\\\").replaceAll('"""', '\\"\\"\\"');
      const end = quoted.endsWith('"') ? "\\\n" : "";
      navigator.clipboard.writeText(`policy = """\\\n${quoted}${end}"""\n`)
        .then(() => tell("The policy was copied as Python."), () => tell("The browser does not allow to copy.", true));
    }
  });
}
