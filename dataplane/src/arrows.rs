//! The structure that ARCHITECTURE.md draws holds: a module uses only what lies below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What everything may use: it knows nothing of stores, queues or requests.
const GROUND: [&str; 3] = ["event", "fair", "fail_points"];
/// What roles are made of. Each may use those before it.
const ROOMS: [&str; 6] = ["tenancy", "queue", "cache", "stores", "status", "loki"];
/// What runs as a Deployment of its own. None uses another: between two roles are a store, the queue, or HTTP.
const ROLES: [&str; 5] = ["ingest", "process", "maintain", "search", "gateway"];
/// What people and tests run. Each may use everything, but of the others only those before it.
const TOOLS: [&str; 7] = ["asking", "canary", "smoke", "requeue", "try_out", "simulation", "fuzzing"];

/// Whether a module may use another one.
fn may_use(from: &str, to: &str) -> bool {
    let place = |names: &[&str], name: &str| names.iter().position(|known| *known == name);
    let before = |names: &[&str]| place(names, to).zip(place(names, from)).is_some_and(|(to, from)| to < from);
    let (ground, room, role) = (place(&GROUND, to), place(&ROOMS, to), place(&ROLES, to));
    if from == to {
        return true;
    }
    if GROUND.contains(&from) {
        return false;
    }
    if ROOMS.contains(&from) {
        return ground.is_some() || before(&ROOMS);
    }
    if ROLES.contains(&from) {
        return ground.is_some() || room.is_some();
    }
    ground.is_some() || room.is_some() || role.is_some() || before(&TOOLS)
}

/// The modules that a text names as `crate::…`, outside of comments.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    code.flat_map(|line| line.split("crate::").skip(1).map(name).collect::<Vec<_>>()).collect()
}

/// All of a module's source, its own file and its folder.
fn texts(at: &Path, into: &mut Vec<String>) {
    if at.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| texts(entry, into));
    } else if at.extension().is_some_and(|extension| extension == "rs") {
        into.push(fs::read_to_string(at).unwrap());
    }
}

#[test]
fn every_module_has_its_place_and_uses_only_what_lies_below() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules: BTreeSet<String> = fs::read_dir(&source)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| !["lib", "main", "arrows"].contains(&name.as_str()))
        .collect();
    let placed: BTreeSet<&str> = [&GROUND[..], &ROOMS, &ROLES, &TOOLS].concat().into_iter().collect();
    assert_eq!(modules.iter().map(String::as_str).collect::<BTreeSet<_>>(), placed, "give each module its place here");

    let mut wrong = Vec::new();
    for from in &modules {
        let mut own = Vec::new();
        texts(&source.join(format!("{from}.rs")), &mut own);
        if source.join(from).is_dir() {
            texts(&source.join(from), &mut own);
        }
        assert!(!own.is_empty(), "{from}");
        let used = own.iter().flat_map(|text| named(text)).collect::<BTreeSet<_>>();
        wrong.extend(used.into_iter().filter(|to| !may_use(from, to)).map(|to| format!("{from} uses {to}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn roles_use_no_roles_and_rooms_no_roles() {
    for (from, to, may) in [
        ("process", "stores", true),
        ("process", "maintain", false),
        ("search", "gateway", false),
        ("stores", "tenancy", true),
        ("tenancy", "stores", false),
        ("queue", "process", false),
        ("event", "queue", false),
        ("smoke", "asking", true),
        ("asking", "smoke", false),
        ("ingest", "smoke", false),
        ("search", "another", false),
    ] {
        assert_eq!(may_use(from, to), may, "{from} -> {to}");
    }
    let text = "use crate::stores::raw;\n/// crate::not_this\nlet x = crate::queue::a(crate::event::b);";
    assert_eq!(named(text), ["event", "queue", "stores"].map(str::to_owned).into());
}
