//! What a word is: the words of a text as the index has them.
//!
//! The index's analyzer (`lh_text` of the operator's template) takes `.`, `_`, `:` and `'` for spaces, cuts by Lucene's
//! standard tokenizer, and writes words in lower case. That tokenizer follows Unicode's rules for words (UAX #29) with
//! a tailoring: a run of Thai, Lao, Khmer or Burmese is one word, each ideograph and each hiragana is one, a picture is
//! one, and signs are none. A test on a real server holds [`words`] to it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// Longest word, in UTF-16 units; a longer one is cut into several.
const MAX_UNITS: usize = 255;

/// One word, by the names of UAX #29: what joins whom stands in its table of rules.
static WORD: LazyLock<Regex> = LazyLock::new(|| {
    // The index knows Unicode 12.1, in which U+00B8 was no letter yet.
    let class = |class: &str| format!(r"[[{class}]&&\p{{age=12.1}}]");
    // What follows a character and belongs to it.
    let tail = format!("{}*", class(r"\p{wb=Format}\p{wb=Extend}\p{wb=ZWJ}"));
    let one = |of: &str| format!("(?:{}{tail})", class(of));
    let letter = one(r"[\p{wb=ALetter}\p{wb=Hebrew_Letter}]--\x{B8}");
    let hebrew = one(r"\p{wb=Hebrew_Letter}");
    let double = one(r"\p{wb=Double_Quote}");
    let digit = one(r"\p{wb=Numeric}");
    let katakana = one(r"\p{wb=Katakana}");
    let extend = one(r"\p{wb=ExtendNumLet}");
    let in_word = one(r"\p{wb=MidLetter}\p{wb=MidNumLet}");
    let in_number = one(r"\p{wb=MidNum}\p{wb=MidNumLet}");
    let chain = format!("{letter}(?:(?:{in_word}|{extend}*){letter})*");
    let letters = format!("(?:(?:{chain}{extend}*)?{hebrew}{double}{hebrew}|{chain})");
    let digits = format!("{digit}(?:(?:{in_number}|{extend}*){digit})*");
    let run = format!("(?:{katakana}(?:{extend}*{katakana})*|(?:{letters}|{digits})+)");
    let word = format!("{extend}*{run}(?:{extend}+{run})*{extend}*");
    // Scripts without spaces between words.
    let scripts = r"\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}";
    let complex = format!("{}+", one(&format!(r"[{scripts}]&&[\p{{L}}\p{{M}}]")));
    let alone = one(r"\p{Han}\p{Hiragana}");
    let picture = r"[[\p{Emoji}\p{Extended_Pictographic}]--[0-9#*\p{wb=Regional_Indicator}]]";
    let joined = r"[\p{Extended_Pictographic}]";
    // The sign that asks for a picture ends it.
    let plain = r"[[\p{wb=Format}\p{wb=Extend}]--\x{FE0F}]*\x{FE0F}?";
    let short_tail = class(r"[\p{wb=Format}\p{wb=Extend}\p{wb=ZWJ}]--\x{FE0F}");
    let pictures = format!(r"(?:\x{{200D}}{joined}|{picture})(?:{plain}\x{{200D}}{joined})*{short_tail}*\x{{FE0F}}?");
    let flag = format!("{}{{2}}", one(r"\p{wb=Regional_Indicator}"));
    let keycap = format!(r"[0-9#*]\x{{FE0F}}?\x{{20E3}}{short_tail}*");
    expression(&format!("{keycap}|{flag}|{word}|{pictures}|{complex}|{alone}"))
});

#[expect(clippy::expect_used, reason = "the expression is ours, and the tests use it")]
fn expression(text: &str) -> Regex {
    Regex::new(text).expect("a valid expression")
}

/// The words of a text, in order and in lower case.
pub fn words(text: &str) -> Vec<String> {
    let text = split_signs(text);
    let mut words = Vec::new();
    WORD.find_iter(&text).for_each(|word| push(&mut words, word.as_str()));
    words
}

/// The signs that the index takes for spaces.
fn split_signs(text: &str) -> Cow<'_, str> {
    const SIGNS: [char; 4] = ['.', '_', ':', '\''];
    if text.contains(SIGNS) { Cow::Owned(text.replace(SIGNS, " ")) } else { Cow::Borrowed(text) }
}

/// Adds a word, in pieces where it is too long.
fn push(words: &mut Vec<String>, word: &str) {
    let mut piece = String::new();
    let mut units = 0;
    for c in word.chars() {
        if units + c.len_utf16() > MAX_UNITS {
            words.push(std::mem::take(&mut piece));
            units = 0;
        }
        piece.push(lower(c));
        units += c.len_utf16();
    }
    if !piece.is_empty() {
        words.push(piece);
    }
}

/// A word in lower case, as the index writes it: `str::to_lowercase` goes by what stands beside a letter, and makes two
/// of some.
pub fn lower_case(word: &str) -> String {
    word.chars().map(lower).collect()
}

/// In lower case, character by character, whatever stands beside it.
fn lower(c: char) -> char {
    // İ becomes two characters by the full rules, and an i by the simple ones.
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_its_words() {
        for (text, expected) in [
            ("", &[][..]),
            ("Connection reset", &["connection", "reset"]),
            (
                "java.lang.NullPointerException: user_id=42",
                &["java", "lang", "nullpointerexception", "user", "id", "42"],
            ),
            ("foo-bar a/b x=1", &["foo", "bar", "a", "b", "x", "1"]),
            ("it's 3,000.5 ms", &["it", "s", "3,000", "5", "ms"]),
            ("a,b 1;2", &["a", "b", "1;2"]),
            ("Grüße ΌΣΟΣ İ", &["grüße", "όσοσ", "i"]),
            ("世界のカタカナ", &["世", "界", "の", "カタカナ"]),
            ("สวัสดีabc", &["สวัสดี", "abc"]),
            ("안녕 세계", &["안녕", "세계"]),
            ("ok 👍🏽 🇩🇪 #️⃣ – ©", &["ok", "👍🏽", "🇩🇪", "#️⃣", "©"]),
            ("=> ... ()", &[]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert_eq!(lower_case("ΟΔΟΣ İst"), "οδοσ ist");
        let long = words(&"x".repeat(600));
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [255, 255, 90]);
    }
}
