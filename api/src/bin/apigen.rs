//! Writes what is made from the words of the API, below the folder named by the first argument, whose docs/api.md it
//! reads: `api/openapi.json`, `api/types.ts`, and the tables of `docs/api.md`.

use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut folders = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (folders.next(), folders.next()) else { return Err("usage: apigen FROM TO".into()) };
    let page = fs::read_to_string(from.join("docs/api.md"))?;
    for (file, text) in [
        ("api/openapi.json", api::openapi::text()),
        ("api/types.ts", api::typescript::text()),
        ("docs/api.md", api::page::with_tables(&page)?),
    ] {
        let path = to.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&to))?;
        fs::write(path, text)?;
    }
    Ok(())
}
