// SPDX-License-Identifier: MPL-2.0
//! Subtitles as `tx3g` holds them: a length, then the text in UTF-8.

/// Longest text that a sample can hold, in bytes.
const MAX_TEXT: usize = u16::MAX as usize;

/// What is shown between two subtitles.
pub const NOTHING: [u8; 2] = [0; 2];

/// A sample that shows a text. What is longer than 65535 bytes is cut off.
pub fn sample(text: &str) -> Vec<u8> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = (end as u16).to_be_bytes().to_vec();
    out.extend(&text.as_bytes()[..end]);
    out
}

/// The text of Pango markup: without tags, with entities replaced.
pub fn plain(markup: &str) -> String {
    let mut out = String::with_capacity(markup.len());
    let mut rest = markup;
    while let Some(at) = rest.find(['<', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if rest.starts_with('<') { '>' } else { ';' };
        let Some(len) = rest.find(end) else { break };
        if let Some(entity) = rest[..len].strip_prefix('&') {
            match character(entity) {
                Some(c) => out.push(c),
                None => out.push_str(&rest[..=len]),
            }
        }
        rest = &rest[len + 1..];
    }
    out.push_str(rest);
    out
}

fn character(entity: &str) -> Option<char> {
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_plain() {
        let markup = "<b>A &amp; B</b> &lt;3 &#x20AC;&#33; &unknown; <i>fine</i>";
        assert_eq!(plain(markup), "A & B <3 €! &unknown; fine");
        assert_eq!(plain("no end <b"), "no end <b");
        assert_eq!(plain("5 & 6"), "5 & 6");
    }

    #[test]
    fn samples_have_their_length_first() {
        assert_eq!(sample("né"), b"\0\x03n\xc3\xa9");
        let long = sample(&"é".repeat(40_000));
        // Never half a character.
        assert_eq!(long.len(), 2 + 65_534);
        assert_eq!(sample(""), NOTHING);
    }
}
