//! The short form of the fault matrix, on the program as it is shipped: a 202 is a promise.
//!
//! All of it is `make chaos`. These faults touch nothing but what they start themselves.

use std::path::PathBuf;

use testkit::chaos::{self, Fault, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_accepted_is_kept_once() -> anyhow::Result<()> {
    let settings = Settings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_loggerhub")),
        fail_points: None,
        folder: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
        seed: rand::random(),
        at_once: 4,
    };
    let report = chaos::run(&settings, &Fault::short(), |_| {}).await?;
    let lines: Vec<String> = report.outcomes.iter().map(chaos::Outcome::line).collect();
    println!("seed {}\n{}\n{}", report.seed, chaos::Report::head(), lines.join("\n"));
    assert!(report.held(), "seed {}: logs and ledgers are in {}", report.seed, settings.folder.display());
    Ok(())
}
