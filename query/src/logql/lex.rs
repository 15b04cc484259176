//! The tokens of LogQL, each with its place.

use super::parse::LogQlError;
use super::units;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Name(String),
    /// A text in quotation marks.
    Text(String),
    /// A number.
    Number(f64),
    /// A duration, in seconds.
    Duration(f64),
    /// A number of bytes.
    Bytes(f64),
    /// `--strict`
    Flag(String),
    /// A sign.
    Sign(&'static str),
}

/// A token and where it begins, in bytes of the query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

/// Longest first.
const SIGNS: [&str; 31] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "=", ">", "<", "|",
    "+", "-", "*", "/", "%", "^", ".", "!", ":", "@",
];

/// The tokens of a query.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, LogQlError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if c == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (token, length) = match c {
            '"' => quoted(text, at)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| LogQlError::at(text, at, "literal not terminated"))?;
                // As Go reads it, a carriage return in it is none.
                (Token::Text(rest[1..=end].replace('\r', "")), end + 2)
            }
            _ if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) => {
                number(text, at)?
            }
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (Token::Name(rest[..end].to_owned()), end)
            }
            '-' if rest.starts_with("--") && rest[2..].starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let end =
                    rest[2..].find(|c: char| !(c.is_ascii_alphabetic() || c == '-')).map_or(rest.len(), |end| end + 2);
                (Token::Flag(rest[2..end].to_owned()), end)
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| LogQlError::at(text, at, format!("syntax error: unexpected `{c}`")))?;
                (Token::Sign(sign), sign.len())
            }
        };
        tokens.push(Placed { token, at });
        at += length;
    }
    Ok(tokens)
}

/// `500`, `1.5e3`, `1h30m`, `10KB`.
fn number(text: &str, at: usize) -> Result<(Token, usize), LogQlError> {
    let rest = &text[at..];
    let mut end = 0;
    let mut before = ' ';
    for c in rest.chars() {
        let signed = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && rest[..end - 1].parse::<f64>().is_ok();
        if !(c.is_alphanumeric() || c == '.' || c == 'µ' || signed) {
            break;
        }
        end += c.len_utf8();
        before = c;
    }
    let word = &rest[..end];
    let number = word.parse().ok().filter(|number: &f64| number.is_finite()).map(Token::Number);
    let token = number
        .or_else(|| units::duration(word).map(Token::Duration))
        .or_else(|| units::bytes(word).map(Token::Bytes))
        .ok_or_else(|| LogQlError::at(text, at, format!("syntax error: `{word}` is no number, duration or size")))?;
    Ok((token, end))
}

/// A text in double quotation marks, with Go's escapes.
fn quoted(text: &str, at: usize) -> Result<(Token, usize), LogQlError> {
    let open = || LogQlError::at(text, at, "literal not terminated");
    let mut value: Vec<u8> = Vec::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => {
                let value = String::from_utf8(value).map_err(|_| LogQlError::at(text, at, "a text is not UTF-8"))?;
                return Ok((Token::Text(value), offset + 2));
            }
            '\n' => return Err(open()),
            '\\' => {
                let (_, escape) = chars.next().ok_or_else(open)?;
                let bad = || LogQlError::at(text, at + 1 + offset, "invalid char escape");
                let mut digits = |count: usize, radix: u32, first: Option<char>| -> Result<u32, LogQlError> {
                    let mut number = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
                    for _ in usize::from(first.is_some())..count {
                        let digit = chars.next().and_then(|(_, c)| c.to_digit(radix)).ok_or_else(bad)?;
                        number = number * radix + digit;
                    }
                    Ok(number)
                };
                match escape {
                    'a' => value.push(0x07),
                    'b' => value.push(0x08),
                    'f' => value.push(0x0c),
                    'n' => value.push(b'\n'),
                    'r' => value.push(b'\r'),
                    't' => value.push(b'\t'),
                    'v' => value.push(0x0b),
                    '\\' | '"' | '\'' => value.push(escape as u8),
                    'x' => value.push(u8::try_from(digits(2, 16, None)?).map_err(|_| bad())?),
                    '0'..='7' => value.push(u8::try_from(digits(3, 8, Some(escape))?).map_err(|_| bad())?),
                    'u' | 'U' => {
                        let code = digits(if escape == 'u' { 4 } else { 8 }, 16, None)?;
                        let c = char::from_u32(code).ok_or_else(bad)?;
                        value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    _ => return Err(bad()),
                }
            }
            c => value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(open())
}
