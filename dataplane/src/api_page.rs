//! Holds `docs/api.md` to what the code says: every route, and every code of a refusal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::search::ROUTES;

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// What stands in quotes after a status: `StatusCode::NOT_FOUND, "not_found"`.
fn codes(source: &str) -> impl Iterator<Item = &str> {
    source.split("StatusCode::").skip(1).filter_map(|rest| {
        let (_, after) = rest.split_once(|c: char| !c.is_ascii_uppercase() && c != '_')?;
        let quoted = after.trim_start().strip_prefix('"')?;
        let (code, _) = quoted.split_once('"')?;
        code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(code)
    })
}

/// What stands in quotes after an arrow, in the function that names ingest's refusals: ` => "empty_batch"`.
fn refusals(source: &str) -> BTreeSet<&str> {
    let (_, code) = source.split_once("pub fn code(&self)").unwrap();
    let (code, _) = code.split_once("pub fn cause(&self)").unwrap();
    code.split("=> \"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

#[test]
fn the_api_page_names_every_code_and_every_route() {
    let page = fs::read_to_string("../docs/api.md").unwrap();
    let (_, table) = page.split_once("\n## Codes\n").unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
        .flat_map(|(codes, _)| codes.split(", ").map(|code| code.trim_matches('`')))
        .collect();
    let mut files = Vec::new();
    for folder in ["src", "../runtime/src/http"] {
        sources(Path::new(folder), &mut files);
    }
    let mut said: BTreeSet<&str> = files.iter().flat_map(|file| codes(file)).collect();
    let refusals_of_ingest = fs::read_to_string("src/ingest/refusal.rs").unwrap();
    said.extend(refusals(&refusals_of_ingest));
    // Said with the status that the handshake has.
    said.insert("invalid_upgrade");
    assert_eq!(named, said, "the codes on the page, and those in the code");

    for route in &ROUTES {
        let shown = format!("`{} {}`", route.method, route.path);
        let row = page.lines().find(|line| line.starts_with("| ") && line.contains(&shown));
        let row = row.unwrap_or_else(|| panic!("{shown} is not on the page"));
        assert!(row.contains(&format!("| {:?} |", route.scope)), "{row}");
    }
}
