//! The tables of `docs/api.md`: each stands under its heading, up to the next line that belongs to none.

use std::fmt::Write;

use crate::openapi::parameters;
use crate::routes::{ROUTES, Role};
use crate::tail::Ending;
use crate::{Code, Retry};

/// The page with its tables made anew. An error names the heading that is missing.
pub fn with_tables(page: &str) -> Result<String, String> {
    let tables =
        [("Routes", routes()), ("Parameters", parameter_table()), ("Codes", codes()), ("Close codes", endings())];
    let mut page = page.to_owned();
    for (heading, table) in tables {
        page = with_table(&page, heading, &table).ok_or_else(|| format!("docs/api.md has no table below {heading}"))?;
    }
    Ok(page)
}

/// The page with the first table below a heading replaced.
fn with_table(page: &str, heading: &str, table: &str) -> Option<String> {
    let mut lines = page.lines();
    let mut made = String::new();
    let mut copy = |made: &mut String, found: &dyn Fn(&str) -> bool| {
        for line in lines.by_ref() {
            if found(line) {
                return Some(line.to_owned());
            }
            made.push_str(line);
            made.push('\n');
        }
        None
    };
    let heading = copy(&mut made, &|line| line.trim_start_matches('#').trim() == heading && line.starts_with('#'))?;
    made.push_str(&heading);
    made.push('\n');
    copy(&mut made, &|line| line.starts_with('|'))?;
    made.push_str(table);
    let next = lines.by_ref().find(|line| !line.starts_with('|'));
    for line in next.into_iter().chain(lines) {
        made.push_str(line);
        made.push('\n');
    }
    Some(made)
}

fn routes() -> String {
    let mut table = "| Route | Scope | Answers |\n|---|---|---|\n".to_owned();
    for route in &ROUTES {
        let scope = route.scope.map_or_else(|| "–".to_owned(), |scope| format!("{scope:?}"));
        line(&mut table, &[&format!("`{route}`"), &scope, route.summary]);
    }
    table
}

fn parameter_table() -> String {
    let mut rows: Vec<(String, Vec<String>, String)> = Vec::new();
    for route in ROUTES.iter().filter(|route| route.role != Role::Gateway) {
        for parameter in parameters(route) {
            let place = if parameter.path { continue } else { format!("`{route}`") };
            match rows.iter_mut().find(|(name, _, about)| *name == parameter.name && *about == parameter.description) {
                Some((_, places, _)) => places.push(place),
                None => rows.push((parameter.name, vec![place], parameter.description)),
            }
        }
    }
    let mut table = "| Parameter | of | |\n|---|---|---|\n".to_owned();
    for (name, places, about) in rows {
        line(&mut table, &[&format!("`{name}`"), &places.join(", "), &about]);
    }
    table
}

fn codes() -> String {
    let mut table = "| Code | Status | Again | What to do |\n|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let statuses: Vec<_> = code.statuses().iter().map(u16::to_string).collect();
        let again = match code.retry() {
            Retry::No => "no",
            Retry::Yes => "yes",
            Retry::After(_) => "after `Retry-After`",
        };
        line(&mut table, &[&format!("`{code}`"), &statuses.join(", "), again, code.meaning()]);
    }
    table
}

fn endings() -> String {
    let mut table = "| Code | Reason |\n|---|---|\n".to_owned();
    for ending in Ending::ALL {
        line(&mut table, &[&ending.code().to_string(), &format!("`{}`", ending.reason())]);
    }
    table
}

fn line(table: &mut String, cells: &[&str]) {
    // Writing to a String can't fail.
    _ = writeln!(table, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_below_its_heading_is_made_anew() {
        let page = "# A\n| x |\n\n## Codes\n\ntext\n\n| old |\n|---|\n| old |\n\nafter\n| other |\n";
        let expected = "# A\n| x |\n\n## Codes\n\ntext\n\n| new |\n\nafter\n| other |\n";
        assert_eq!(with_table(page, "Codes", "| new |\n").as_deref(), Some(expected));
        assert_eq!(with_table(page, "Routes", "| new |\n"), None);
    }
}
