// Which decode slot gave which answer when: a row for each slot of a data shard, a column for each trip of the loop.

const slotsBox = { left: 34, top: 6, bottom: 22 };

function slotsView() {
  const step = data.slots[$("slots-step").selectedIndex];
  const shard = step.shards[$("slots-shard").selectedIndex];
  return { step, shard, trips: shard.rounds[shard.rounds.length - 1] };
}

// The answer with this number in the shard: its round, prompt, number among the prompt's answers, and group if the page has it.
function describeSlotAnswer({ step, shard }, number) {
  const first = (step.prompts / step.shards.length) * $("slots-shard").selectedIndex;
  const [round, place] = shard.groups[Math.floor(number / step.answers)];
  const prompt = first + place;
  const last = round === shard.rounds.length - 2;
  const group = last ? groupsOf(step.step).find((each) => each.place === prompt) : undefined;
  return { round, prompt, k: number % step.answers, group };
}

function slotColor(style, { group, k }) {
  if (!group) return style.getPropertyValue("--line");
  return `rgb(${style.getPropertyValue(isCorrect(group, k) ? "--good" : "--bad")})`;
}

function drawSlots() {
  const view = slotsView();
  const { step, shard, trips } = view;
  const canvas = $("slots");
  const width = canvas.clientWidth;
  const height = Math.min(Math.max(6, 420 / step.slots), 22);
  const scale = window.devicePixelRatio || 1;
  const whole = slotsBox.top + step.slots * height + slotsBox.bottom;
  canvas.style.height = `${whole}px`;
  [canvas.width, canvas.height] = [width * scale, whole * scale];
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const column = (width - slotsBox.left - 6) / Math.max(trips, 1);
  Object.assign(view, { height, column });
  pen.font = "11px system-ui";
  pen.fillStyle = style.getPropertyValue("--panel");
  pen.fillRect(slotsBox.left, slotsBox.top, trips * column, step.slots * height);
  shard.lengths.forEach((length, number) => {
    const answer = describeSlotAnswer(view, number);
    const [x, y] = [slotsBox.left + shard.starts[number] * column, slotsBox.top + shard.slots[number] * height];
    const gap = Math.min(1, (length * column) / 4);
    pen.fillStyle = slotColor(style, answer);
    // Not by color alone: an incorrect answer is half as high.
    const low = answer.group && !isCorrect(answer.group, answer.k) ? (height - 1) * 0.45 : 0;
    pen.fillRect(x, y + low, length * column - gap, height - 1 - low);
    // An answer of an earlier step goes on here; one that is unfinished at the end goes on in the next.
    if (length && shard.before[number]) pen.clearRect(x, y, 2, height / 2);
  });
  pen.fillStyle = pen.strokeStyle = style.getPropertyValue("--ink");
  const drawLine = (trip, dash) => {
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(slotsBox.left + trip * column, slotsBox.top);
    pen.lineTo(slotsBox.left + trip * column, slotsBox.top + step.slots * height);
    pen.stroke();
  };
  shard.rounds.slice(1, -1).forEach((trip) => drawLine(trip, []));
  if (!step.partial) drawLine(drainTrip(shard), [5, 4]);
  pen.fillText("slot", 2, slotsBox.top + 10);
  for (const trip of [0, Math.round(trips / 2), trips]) {
    pen.textAlign = trip === trips ? "right" : trip ? "center" : "left";
    pen.fillText(trip ? String(trip) : "trip 0", slotsBox.left + trip * column, whole - 8);
  }
  canvas.onmousemove = (event) => pointSlots(view, event);
  canvas.onclick = (event) => openSlotAnswer(view, event);
  $("slots-summary").textContent = summarizeSlots(view);
  canvas.setAttribute("aria-label", summarizeSlots(view));
}

// The trip at which the last waiting answer found a slot: from there on slots are free.
function drainTrip(shard) {
  return shard.starts.reduce((latest, start, n) => (shard.lengths[n] ? Math.max(latest, start) : latest), 0);
}

function summarizeSlots({ step, shard, trips }) {
  const drawn = shard.lengths.reduce((sum, length) => sum + length, 0);
  const count = shard.lengths.filter((length) => length).length;
  const busyShare = percent(drawn / (step.slots * trips));
  const whole = `${count} answers in ${step.slots} slots and ${trips} trips, ${busyShare} of the places busy.`;
  if (step.partial) {
    const older = shard.lengths.filter((length, number) => length && shard.before[number]).length;
    return `${whole} ${older} of them began in earlier steps (notched), ${shard.goesOn.length} go on in the next.`;
  }
  const drain = drainTrip(shard);
  const ends = shard.lengths.map((length, number) => length + shard.starts[number]);
  const late = ends.filter((end) => end > drain).length;
  const tail = shard.lengths.reduce((sum, length, number) => sum + Math.max(0, ends[number] - Math.max(drain, shard.starts[number])), 0);
  const busy = trips > drain ? percent(tail / (step.slots * (trips - drain))) : "–";
  const halved = step.halvings ? " (halving gives some of the rest back)" : "";
  const last = trips - drain === 1 ? "the last trip finishes" : `the last ${trips - drain} trips finish`;
  return `${whole} The queue is empty from trip ${drain} on (dashed line): ${last} ${late} answers with ${busy} busy${halved}.`;
}

function findSlotAnswer({ shard, height, column }, event) {
  const trip = (event.offsetX - slotsBox.left) / column;
  const slot = Math.floor((event.offsetY - slotsBox.top) / height);
  return shard.slots.findIndex((each, n) => each === slot && shard.starts[n] <= trip && trip < shard.starts[n] + shard.lengths[n]);
}

function pointSlots(view, event) {
  const number = findSlotAnswer(view, event);
  if (number < 0) return;
  const { round, prompt, k, group } = describeSlotAnswer(view, number);
  const start = view.shard.starts[number];
  const before = view.shard.before[number] ? `, after ${view.shard.before[number]} in earlier steps` : "";
  const after = view.shard.goesOn.includes(number) ? ", and goes on in the next" : "";
  const trains = round < 0 ? "of a group that trains later" : `round ${round + 1}, prompt ${prompt + 1}`;
  const what = group ? `${isCorrect(group, k) ? "✓" : "✗"} ${group.verdicts[k]}${group.truncated[k] ? ", cut" : ""}: ${shortPrompt(group.prompt).slice(0, 60)}` : "its text is not in this page";
  $("slots-numbers").textContent = `slot ${view.shard.slots[number]}, trips ${start} to ${start + view.shard.lengths[number] - 1}: ` +
    `${view.shard.lengths[number]} tokens${before}${after}, ${trains}, answer ${k + 1}; ${what}`;
}

function openSlotAnswer(view, event) {
  const number = findSlotAnswer(view, event);
  const { group } = number < 0 ? {} : describeSlotAnswer(view, number);
  if (group) showGroup(view.step.step, group);
}

if (data.slots.length) {
  const shards = () => {
    fillSelect("slots-shard", data.slots[$("slots-step").selectedIndex].shards.map((_, shard) => shard + 1));
    $("slots-shard").parentElement.hidden = $("slots-shard").options.length < 2;
    drawSlots();
  };
  fillSelect("slots-step", data.slots.map((row) => row.step));
  $("slots-step").selectedIndex = data.slots.length - 1;
  $("slots-step").oninput = shards;
  $("slots-shard").oninput = drawSlots;
  window.addEventListener("resize", drawSlots);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSlots);
  shards();
}
