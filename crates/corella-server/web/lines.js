// Line breaks as a text box keeps them: it turns `\r\n` and `\r` into `\n`, and so does everything that comes to the page, or
// places in the one would not be places in the other.

/** A text with `\n` alone. */
export const plainLines = (text) => (text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text);

/** The same for pieces that follow each other, whose border may go through a `\r\n`: a function of one piece after another. */
export function lineReader() {
  let returned = false;
  return (piece) => {
    const rest = returned && piece.startsWith("\n") ? piece.slice(1) : piece;
    if (piece !== "") returned = piece.endsWith("\r");
    return plainLines(rest);
  };
}
