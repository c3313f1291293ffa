// Elements are made here, and texts are only ever set as text: ids and reasons come from users.

/** An element; properties that are no attributes of their own (class, text, data-, aria-, role) are set as such. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name === "width") made.style.width = value;
    else if (name === "left") made.style.left = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** What is said to those who do not see. */
export function say(text) {
  byId("said").textContent = text;
}

/** The marked buttons of a group: one is pressed. */
export function press(group, chosen) {
  for (const button of group) button.setAttribute("aria-pressed", String(button === chosen));
}
