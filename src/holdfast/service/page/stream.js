// A stream of events, read as it comes.

/** The events of a `text/event-stream` body, one after another: `{ event, id, data }`; comments as `{ comment }`. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (left + value).split(/\r\n\r\n|\n\n|\r\r/);
    left = blocks.pop();
    for (const block of blocks) yield parsed(block);
  }
}

function parsed(block) {
  const event = {};
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    const key = name || "comment";
    event[key] = key in event ? `${event[key]}\n${value}` : value;
  }
  return event;
}
