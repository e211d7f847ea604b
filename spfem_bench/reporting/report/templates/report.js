"use strict";
// Everything that is to be read is in the page without this. It adds: one bar for all clips of an
// example, and names under the pointer.
(() => {
  const RATE = 25;
  const data = JSON.parse(document.getElementById("data").textContent);
  // ---- clips of one example, in step
  const template = document.getElementById("bar");
  const pause_others = new Set();

  function player(root) {
    // A page with a thousand of these elements would be slow to open.
    const videos = [...root.querySelectorAll(".frame")].map((place, i) => {
      const video = document.createElement("video");
      video.muted = i !== Number(root.dataset.lead);
      video.playsInline = true;
      video.preload = "auto";
      video.tabIndex = -1;
      video.ariaLabel = place.nextElementSibling.textContent.trim();
      video.src = place.dataset.src;
      place.replaceChildren(video);
      return video;
    });
    const entry = root.closest(".entry");
    const bar = template.content.firstElementChild.cloneNode(true);
    const at = (name) => bar.querySelector(`.${name}`);
    const play = at("play"), seek = at("seek"), time = at("time");
    const heads = [...entry.querySelectorAll(".time.chart")];
    let position = 0, playing = false, rate = 1, sounding = Number(root.dataset.lead);
    root.append(bar);
    videos.forEach((video, i) => {
      at("sound").append(new Option(video.ariaLabel, i, i === sounding, i === sounding));
    });
    at("sound").append(new Option("none", -1));

    const length = (video) => (Number.isFinite(video.duration) ? video.duration : 0);
    const longest = () => Math.max(...videos.map(length));
    const frame = () => Math.floor(position * RATE + 1e-4);

    function tell() {
      const total = longest();
      seek.max = total || 1;
      seek.value = position;
      seek.setAttribute("aria-valuetext", `${position.toFixed(2)} of ${total.toFixed(2)} seconds`);
      time.textContent = `${position.toFixed(2)} / ${total.toFixed(2)} s, frame ${frame()}`;
      for (const head of heads) {
        const x = Number(head.dataset.left) + position * Number(head.dataset.second);
        head.querySelector(".playhead").setAttribute("d", `M${x} 6V158`);
      }
    }
    function place(to) {
      position = Math.min(Math.max(to, 0), Math.max(longest() - 0.5 / RATE, 0));
      // A clip that is shorter stays at its last frame.
      for (const v of videos) v.currentTime = Math.min(position, Math.max(length(v) - 0.5 / RATE, 0));
      tell();
    }
    function stop() {
      playing = false;
      for (const v of videos) v.pause();
      play.classList.remove("playing");
      play.setAttribute("aria-label", "Play");
      pause_others.delete(stop);
    }
    const ready = (v) => v.readyState >= 3 && !v.seeking ? null : new Promise((go) => {
      for (const event of ["canplay", "seeked", "error"]) v.addEventListener(event, go, { once: true });
    });
    async function start() {
      for (const other of [...pause_others]) other();
      pause_others.add(stop);
      playing = true;
      play.classList.add("playing");
      play.setAttribute("aria-label", "Pause");
      if (position >= longest() - 1.5 / RATE) position = 0;
      place(position);
      await Promise.all(videos.map(ready));
      if (!playing) return;
      for (const v of videos) {
        v.playbackRate = rate;
        if (length(v) - position > 0.5 / RATE) v.play().catch(() => {});
      }
      requestAnimationFrame(tick);
    }
    function tick() {
      if (!playing) return;
      const running = videos.filter((v) => !v.ended && !v.paused);
      if (!running.length) {
        position = longest();
        tell();
        stop();
        return;
      }
      // The clip that is heard leads; the others are led gently, or set when far off.
      const leader = running.includes(videos[sounding])
        ? videos[sounding]
        : running.reduce((a, b) => (length(a) >= length(b) ? a : b));
      position = leader.currentTime;
      for (const v of running) {
        if (v === leader) { v.playbackRate = rate; continue; }
        const ahead = v.currentTime - position;
        if (Math.abs(ahead) > 0.12) v.currentTime = position;
        else v.playbackRate = Math.abs(ahead) < 0.01 ? rate : rate * (1 - Math.max(-0.3, Math.min(0.3, ahead * 4)));
      }
      tell();
      requestAnimationFrame(tick);
    }
    const step = (by) => { stop(); place((frame() + by + 0.5) / RATE); };

    play.addEventListener("click", () => (playing ? stop() : start()));
    at("back").addEventListener("click", () => step(-1));
    at("on").addEventListener("click", () => step(1));
    seek.addEventListener("input", () => { stop(); place(Number(seek.value)); });
    seek.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    });
    at("rate").addEventListener("change", (event) => {
      rate = Number(event.target.value);
      for (const v of videos) v.playbackRate = rate;
    });
    at("sound").addEventListener("change", (event) => {
      sounding = Number(event.target.value);
      videos.forEach((v, i) => { v.muted = i !== sounding; });
    });
    entry.addEventListener("keydown", (event) => {
      if (event.target.closest("select, summary, a") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === " " && !event.target.closest("button")) { event.preventDefault(); play.click(); }
      else if (event.key === ",") step(-1);
      else if (event.key === ".") step(1);
    });
    for (const v of videos) {
      v.addEventListener("click", () => play.click());
      v.addEventListener("loadedmetadata", tell);
    }
    for (const head of heads) head.addEventListener("click", (event) => {
      const box = head.getBoundingClientRect();
      const x = (event.clientX - box.left) * head.viewBox.baseVal.width / box.width;
      stop();
      place((x - Number(head.dataset.left)) / Number(head.dataset.second));
    });
    tell();
  }
  const seen = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) { seen.unobserve(e.target); player(e.target); }
  }, { rootMargin: "300px" });
  for (const root of document.querySelectorAll(".player")) seen.observe(root);

  // ---- which clip is under the pointer
  const tip = document.getElementById("tip");
  const NS = "http://www.w3.org/2000/svg";
  for (const chart of document.querySelectorAll(".strips")) {
    const section = data[Number(chart.dataset.section)];
    const values = section.plots[Number(chart.dataset.plot)];
    const [left, right, low, high] = ["left", "right", "low", "high"].map((k) => Number(chart.dataset[k]));
    const rows = [...chart.querySelectorAll("g[data-run]")];
    const ring = document.createElementNS(NS, "circle");
    ring.setAttribute("class", "here");
    ring.setAttribute("r", 4);
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const unit = chart.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * unit, y = (event.clientY - box.top) * unit;
      const row = rows.find((r) => Math.abs(Number(r.dataset.y) - y) <= 13);
      if (!row) return leave();
      const of = values[Number(row.dataset.run)];
      // The points' heights repeat the order of the items that have a value.
      const heights = [...row.querySelector(".cloud").getAttribute("d").matchAll(/ ([\d.]+)h0/g)];
      let best = null, least = 12, n = 0;
      of.forEach((value, i) => {
        if (value === null) return;
        const px = left + (value - low) / (high - low) * (right - left), py = Number(heights[n++][1]);
        const far = Math.hypot(px - x, py - y);
        if (far < least) { least = far; best = { i, value, px, py }; }
      });
      if (!best) return leave();
      ring.setAttribute("cx", best.px);
      ring.setAttribute("cy", best.py);
      chart.append(ring);
      tip.textContent = `${section.items[best.i]}  ${best.value.toFixed(3)}`;
      tip.hidden = false;
      tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 14}px`;
    });
    const leave = () => { tip.hidden = true; ring.remove(); };
    chart.addEventListener("pointerleave", leave);
  }
})();
