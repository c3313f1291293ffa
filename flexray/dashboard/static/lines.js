// A long list, of which only what is in sight is in the document. Lines may differ in height.

const BEYOND = 200; // pixels above and below that are drawn too, so that scrolling shows no gaps

export class Lines {
  /**
   * @param scroller the element that scrolls; gets the lines.
   * @param render (line) -> element; a line has `key` and `height`.
   */
  constructor(scroller, render) {
    this.scroller = scroller;
    this.render = render;
    this.lines = [];
    this.tops = [0];
    this.shown = new Map();
    this.inner = document.createElement("div");
    this.inner.className = "lines";
    this.inner.setAttribute("role", "presentation");
    scroller.append(this.inner);
    scroller.addEventListener("scroll", () => requestAnimationFrame(() => this.show(false)), { passive: true });
  }

  set(lines) {
    this.lines = lines;
    this.tops = new Array(lines.length + 1);
    let top = 0;
    for (let i = 0; i < lines.length; i++) {
      this.tops[i] = top;
      top += lines[i].height;
    }
    this.tops[lines.length] = top;
    this.inner.style.height = `${top}px`;
    this.show(true);
  }

  /** Draw what is in sight; `anew`: also what was drawn before. */
  show(anew) {
    const { scrollTop, clientHeight } = this.scroller;
    const first = this.at(scrollTop - BEYOND);
    const last = Math.min(this.lines.length - 1, this.at(scrollTop + clientHeight + BEYOND));
    const kept = new Map();
    for (let i = first; i <= last; i++) {
      const line = this.lines[i];
      const before = this.shown.get(line.key);
      let element = before;
      if (anew || !before) {
        element = this.render(line, i);
        element.classList.add("line");
        element.style.height = `${line.height}px`;
        if (before) before.replaceWith(element);
        else this.inner.append(element);
      }
      element.style.transform = `translateY(${this.tops[i]}px)`;
      kept.set(line.key, element);
    }
    for (const [key, element] of this.shown) if (!kept.has(key)) element.remove();
    this.shown = kept;
  }

  /** The line at a height. */
  at(y) {
    let low = 0;
    let high = Math.max(0, this.lines.length - 1);
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Bring a line into sight. */
  reveal(index) {
    const top = this.tops[index];
    const bottom = this.tops[index + 1];
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.scroller.scrollTop = bottom - clientHeight;
    this.show(true);
  }
}
