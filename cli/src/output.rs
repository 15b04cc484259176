//! How answers are printed: aligned columns for people, as kubectl prints them, or JSON.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use crate::args::Output;

/// Longest cell: what is longer can be read with `-o json`.
const LONGEST_CELL: usize = 200;

/// Something that is listed.
pub trait Row: Serialize {
    /// Names of the columns.
    const HEADER: &'static [&'static str];
    /// What is said where there is no row: what is not there, and how it comes.
    const NONE: &'static str;
    /// One text for each column; `now` in seconds since 1970, for ages.
    fn cells(&self, now: i64) -> Vec<String>;
}

/// Prints a list.
pub fn list<R: Row>(output: Output, rows: &[R]) -> anyhow::Result<()> {
    match output {
        Output::Json => json(&rows),
        _ if rows.is_empty() => {
            eprintln!("{}", R::NONE);
            Ok(())
        }
        _ => {
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            let rows: Vec<_> = rows.iter().map(|row| row.cells(now)).collect();
            text(&table(R::HEADER, &rows))
        }
    }
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints text as it is.
pub fn text(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// Prints bytes as they are.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("print")
}

/// Whether it failed because nobody reads on, as `head` does: no failure of ours.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Lines of columns that are as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(&header).chain(rows).map(|line| line.iter().map(|cell| shown(cell)).collect()).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// A text as a terminal may show it: whatever was logged, it moves no cursor and sets no title.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn shown(cell: &str) -> String {
    match cell.chars().count() {
        0 => "<none>".to_owned(),
        1..=LONGEST_CELL => harmless(cell),
        _ => harmless(&cell.chars().take(LONGEST_CELL - 1).chain(['…']).collect::<String>()),
    }
}

/// How long ago that was, in one unit that tells something.
pub fn age(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{minutes}m"),
        7_200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["acme", "True", "ok"], ["a", "", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["NAME", "READY", "MESSAGE"], &rows),
            "NAME   READY    MESSAGE\nacme   True     ok\na      <none>   x\n"
        );
    }

    #[test]
    fn what_was_logged_moves_no_cursor_and_fills_no_screen() {
        assert_eq!(shown("a\u{1b}[2J\nb\u{9b}c"), "a [2J b c");
        assert_eq!(shown(&"x".repeat(300)).chars().count(), LONGEST_CELL);
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, text) in
            [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
