//! The visible text of a web page: tags away, blocks on lines of their own, entities decoded.
//!
//! This is what WET files hold: everything a reader sees, navigation included. The quality rules are there for the rest.

use html_escape::decode_html_entities_to_string;

/// Elements whose content is not shown.
const HIDDEN: [&str; 6] = ["script", "style", "noscript", "template", "iframe", "head"];
/// Elements that flow with the text around them; all others stand on lines of their own.
const INLINE: [&str; 30] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
];

/// Tags that do not end before the page does are looked for this often; later ones end at the next `>`, quoted or not.
const UNENDED: u32 = 8;

/// The text of a page.
pub(super) fn text_of(html: &str) -> String {
    let (mut out, mut tags) = (Text::default(), Tags::default());
    let mut rest = html;
    while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
        out.words(&rest[..at]);
        rest = &rest[at..];
        rest = match tags.read(rest) {
            Some(tag) => {
                let name = tag.name.to_ascii_lowercase();
                let after = tag.after;
                if !tag.closing && name == "title" {
                    // Its content is text even where it looks like tags.
                    let end = find_close(after, "title").unwrap_or(after.len());
                    out.words(&after[..end]);
                    out.line();
                    &after[end..]
                } else if !tag.closing && name == "svg" {
                    if tag.empty { after } else { tags.behind_svg(after) }
                } else if !tag.closing && name != "head" && HIDDEN.contains(&&name[..]) {
                    &after[find_close(after, &name).unwrap_or(after.len())..]
                } else {
                    out.tag(&name, tag.closing);
                    after
                }
            }
            None => match comment(rest) {
                Some(after) => after,
                None => {
                    out.words("<");
                    &rest[1..]
                }
            },
        };
    }
    out.words(rest);
    out.done()
}

struct Tag<'a> {
    name: &'a str,
    closing: bool,
    /// It ends with `/>`, which counts for SVG only.
    empty: bool,
    after: &'a str,
}

/// Reads tags from the front of a page to its end, in time that grows with the page: what was looked for up to the end of the
/// page in vain is not looked for again behind every `<`.
#[derive(Default)]
struct Tags {
    /// No `>` is left.
    none_left: bool,
    /// Tags that did not end.
    unended: u32,
}

impl Tags {
    /// The tag that `text` begins with.
    fn read<'a>(&mut self, text: &'a str) -> Option<Tag<'a>> {
        let body = text.strip_prefix('<')?;
        let (closing, body) = body.strip_prefix('/').map_or((false, body), |b| (true, b));
        if self.none_left || !body.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) {
            return None;
        }
        let length = body.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'-').count();
        let tag = |end: usize| Tag {
            name: &body[..length],
            closing,
            empty: body.as_bytes()[..end].ends_with(b"/"),
            after: &body[end + 1..],
        };
        if self.unended < UNENDED {
            // A quoted value may hold `>`.
            let (mut quote, mut before) = (None, b' ');
            for (i, byte) in body.bytes().enumerate().skip(length) {
                match (quote, byte) {
                    (None, b'>') => return Some(tag(i)),
                    (None, b'"' | b'\'') if before == b'=' => quote = Some(byte),
                    (Some(q), _) if q == byte => quote = None,
                    _ => {}
                }
                if !byte.is_ascii_whitespace() {
                    before = byte;
                }
            }
            self.unended += 1;
        }
        // An unclosed quote or tag: take it up to the next `>`, or leave it as text.
        let end = memchr::memchr(b'>', body.as_bytes());
        self.none_left = end.is_none();
        end.map(tag)
    }

    /// What follows the end of an SVG picture, which may hold others.
    fn behind_svg<'a>(&mut self, text: &'a str) -> &'a str {
        let (mut rest, mut depth) = (text, 1usize);
        while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
            rest = &rest[at..];
            rest = match self.read(rest) {
                Some(tag) => {
                    if tag.name.eq_ignore_ascii_case("svg") {
                        depth = if tag.closing { depth - 1 } else { depth + usize::from(!tag.empty) };
                    }
                    if depth == 0 {
                        return tag.after;
                    }
                    tag.after
                }
                None => comment(rest).unwrap_or(&rest[1..]),
            };
        }
        ""
    }
}

/// What follows the comment, declaration or instruction that `text` begins with.
fn comment(text: &str) -> Option<&str> {
    if let Some(body) = text.strip_prefix("<!--") {
        return Some(body.find("-->").map_or("", |end| &body[end + 3..]));
    }
    if text.starts_with("<!") || text.starts_with("<?") || text.starts_with("</") {
        return Some(text.find('>').map_or("", |end| &text[end + 1..]));
    }
    None
}

/// Where the closing tag of an element begins.
fn find_close(text: &str, name: &str) -> Option<usize> {
    memchr::memmem::find_iter(text.as_bytes(), b"</").find(|at| {
        text.as_bytes().get(at + 2..at + 2 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Text that grows by words and lines.
#[derive(Default)]
struct Text {
    out: String,
    /// A space stands before the next word, if the line has one.
    space: bool,
    /// Depth inside `<pre>`, whose white space counts.
    pre: usize,
    decoded: String,
}

impl Text {
    /// A long text goes in pieces, so that there is no second whole one in memory.
    fn words(&mut self, raw: &str) {
        let mut rest = raw;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece(rest));
            self.piece(piece);
            rest = after;
        }
    }

    fn piece(&mut self, raw: &str) {
        self.decoded.clear();
        decode_html_entities_to_string(raw, &mut self.decoded);
        let decoded = std::mem::take(&mut self.decoded);
        if self.pre > 0 {
            self.out.push_str(&decoded);
        } else {
            self.space |= decoded.starts_with(char::is_whitespace);
            for word in decoded.split_whitespace() {
                if self.space && !self.out.is_empty() && !self.out.ends_with('\n') {
                    self.out.push(' ');
                }
                self.out.push_str(word);
                self.space = true;
            }
            self.space = decoded.ends_with(char::is_whitespace) || (self.space && decoded.trim().is_empty());
        }
        self.decoded = decoded;
    }

    fn tag(&mut self, name: &str, closing: bool) {
        match name {
            "pre" | "textarea" => {
                self.line();
                self.pre = if closing { self.pre.saturating_sub(1) } else { self.pre + 1 };
            }
            "td" | "th" => self.space = true,
            _ if !INLINE.contains(&name) => self.line(),
            _ => {}
        }
    }

    fn line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        self.space = false;
    }

    fn done(mut self) -> String {
        self.out.truncate(self.out.trim_end().len());
        let margin = self.out.len() - self.out.trim_start().len();
        self.out.drain(..margin);
        self.out
    }
}

/// Length of the piece of a text that is decoded at once: up to white space, which no entity holds, or to where one may begin.
fn piece(text: &str) -> usize {
    const MOST: usize = 1 << 16;
    if text.len() <= MOST {
        return text.len();
    }
    let head = &text[..text.floor_char_boundary(MOST)];
    head.rfind(|c: char| c == '&' || c.is_ascii_whitespace()).filter(|at| *at > 0).unwrap_or(head.len())
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn what_is_seen_stays_and_what_is_not_goes() {
        for (html, text) in [
            ("<p>one <b>two</b>three<p>four", "one twothree\nfour"),
            ("a<br>b<div>c</div>d", "a\nb\nc\nd"),
            ("<title>T &amp; <i></title><script>if (a<b) '</p>'</script>x", "T & <i>\nx"),
            ("<a title='1 > 0' href=\"x\">link</a> a < b &lt;c&gt; &#233;&hellip;", "link a < b <c> é…"),
            ("<!-- <p>no --><!DOCTYPE html>yes", "yes"),
            ("<pre>  a\n b</pre>\n\n c", "a\n b\nc"),
            ("<tr><td>1</td><td>2</td></tr><tr><td>3", "1 2\n3"),
            ("unclosed <a href='x", "unclosed <a href='x"),
            ("<ul><li>a<li>b</ul>", "a\nb"),
            ("<p>a<svg width='1' />b<svg/>c", "abc"),
            ("<svg><g><SVG viewBox='0'><text>no</text></SVG></g><!-- </svg> --><text>no</text></svg>yes", "yes"),
            ("<svg><svg/><path d='M0'/></svg>yes<svg>no", "yes"),
            ("<div/>yes<script/>no</script>", "yes"),
        ] {
            assert_eq!(text_of(html), text, "{html}");
        }
    }

    #[test]
    fn a_long_text_is_the_same_in_pieces() {
        for unit in ["caf&eacute; &amp; 日本 ", "&#233;日本語", "日本語"] {
            let (html, text) = (unit.repeat(20_000), unit.repeat(20_000));
            let text = text.replace("&eacute;", "é").replace("&#233;", "é").replace("&amp;", "&");
            assert_eq!(text_of(&html), text.trim(), "{unit}");
            assert_eq!(text_of(&format!("<pre>{html}")), text.trim(), "{unit}");
        }
    }

    /// Each of these took time that grew with the square of the page: hours for these.
    #[test]
    fn tags_without_an_end_cost_no_more_than_the_page() {
        let n = 1 << 20;
        let open = "<a ".repeat(n);
        assert_eq!(text_of(&open), open.trim());
        // Every `>` stands in quotes, whichever tag one begins with.
        assert!(text_of(&"<a =\">=\"".repeat(n)).len() < 10 * n);
        assert_eq!(text_of(&format!("x<svg>{}", "<svg ".repeat(n))), "x");
    }
}
