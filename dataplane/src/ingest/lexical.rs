//! What can be said of text that is no JSON: where an item of an array ends, and which characters were cut in two.

/// Length of the item that `bytes` begin with: up to the comma or bracket that ends it outside of its own
/// brackets and quotation marks. `None` if there is no such end.
pub(super) fn length_of_item(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b',' if depth == 0 => return Some(at),
            b']' | b'}' if depth == 0 => return (*byte == b']').then_some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The text with U+FFFD in place of each escaped half of a surrogate pair that has no other half: what is left
/// when a logger cuts a message inside of an emoji. `None` if there is none.
pub(super) fn with_whole_characters(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        let (first, second) = (unit(bytes, at), unit(bytes, at + 6));
        match (first, second) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.get_or_insert_with(|| bytes.to_vec())[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            // An escape that is no unit has one character more: `\\\\` and `\\"` are not to be looked into.
            _ => at += 2,
        }
    }
    mended
}

/// The UTF-16 unit that is escaped at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_ends_outside_of_its_own_brackets_and_texts() {
        for (bytes, expected) in [
            (r#"{"a":NaN},{}]"#, Some(9)),
            (r#"{"a":"],}\"]"} ]"#, Some(15)),
            (r#"[[1],{"b":[2]}] , 3]"#, Some(16)),
            ("text]", Some(4)),
            (",{}]", Some(0)),
            ("]", Some(0)),
            ("}", None),
            (r#"{"a":"never ends]"#, None),
            (r#"{"a":[1}"#, None),
            ("", None),
        ] {
            assert_eq!(length_of_item(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[test]
    fn half_a_character_becomes_the_replacement_character() {
        for (text, expected) in [
            (r#"{"a":"x \ud83d"}"#, Some(r#"{"a":"x \ufffd"}"#)),
            (r"\udc00\ud800", Some(r"\ufffd\ufffd")),
            (r"\ud83d\ud83d\ude00", Some(r"\ufffd\ud83d\ude00")),
            (r"\ud83d\ude00", None),
            (r"\\ud83d", None),
            (r"\\\ud83d", Some(r"\\\ufffd")),
            (r"\u00e9 \ud8", None),
            ("plain", None),
        ] {
            let mended = with_whole_characters(text.as_bytes());
            assert_eq!(mended.as_deref().map(|text| std::str::from_utf8(text).unwrap()), expected, "{text}");
        }
    }
}
