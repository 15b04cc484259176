//! What a run came to: a table for people, a file for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::ledger::audit::{Audit, Invariant};

/// What one fault came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The fault's name.
    pub fault: String,
    /// The audit.
    pub audit: Audit,
    /// What was seen meanwhile.
    pub seen: Vec<String>,
    /// How long it took.
    pub seconds: u64,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where all chance came from.
    pub seed: u64,
    /// Each fault's outcome.
    pub outcomes: Vec<Outcome>,
}

/// One cell of the table, as `summary.json` has it.
#[derive(Debug, Serialize)]
pub struct Cell<'a> {
    fault: &'a str,
    invariant: Invariant,
    result: &'static str,
    detail: String,
    seed: u64,
    accepted: u64,
    stored: u64,
    dead_letters: u64,
    lost: u64,
    doubled: u64,
}

impl Outcome {
    /// Whether every invariant held.
    pub fn held(&self) -> bool {
        self.audit.problems.is_empty()
    }

    /// Its line of the table, and below it what is wrong.
    pub fn line(&self) -> String {
        let Self { fault, audit, seen, seconds } = self;
        let Audit { accepted, unknown, stored, dead_letters, lost, doubled, problems } = audit;
        let mut line =
            format!("{fault:<38} {accepted:>8} {unknown:>7} {stored:>8} {dead_letters:>5} {lost:>5} {doubled:>7} ");
        for invariant in Invariant::ALL {
            let mark = if problems.contains_key(&invariant) { "FAIL" } else { "ok" };
            // Writing to a string can't fail.
            write!(line, "{mark:>5}").ok();
        }
        write!(line, " {seconds:>4} s  {}", seen.join("; ")).ok();
        for (invariant, problems) in problems {
            write!(line, "\n    {}: {} problems: {}", invariant.short(), problems.count, problems.examples.join(" | "))
                .ok();
        }
        line
    }
}

impl Report {
    /// The head of the table.
    pub fn head() -> String {
        let mut head = format!(
            "{:<38} {:>8} {:>7} {:>8} {:>5} {:>5} {:>7} ",
            "fault", "accepted", "unknown", "stored", "dead", "lost", "doubled"
        );
        for invariant in Invariant::ALL {
            write!(head, "{:>5}", invariant.short()).ok();
        }
        head
    }

    /// Whether every invariant held under every fault.
    pub fn held(&self) -> bool {
        self.outcomes.iter().all(Outcome::held)
    }

    /// Every cell of the table.
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let cell = |outcome: &'_ Outcome, invariant: Invariant| -> (&'static str, String) {
            match outcome.audit.problems.get(&invariant) {
                Some(problems) => ("failed", format!("{} problems: {}", problems.count, problems.examples.join(" | "))),
                None if invariant == Invariant::AsExpected => ("held", outcome.seen.join("; ")),
                None => ("held", String::new()),
            }
        };
        let outcomes = self.outcomes.iter();
        outcomes
            .flat_map(|outcome| {
                Invariant::ALL.map(|invariant| {
                    let (result, detail) = cell(outcome, invariant);
                    let Audit { accepted, stored, dead_letters, lost, doubled, .. } = outcome.audit;
                    let fault = outcome.fault.as_str();
                    Cell {
                        fault,
                        invariant,
                        result,
                        detail,
                        seed: self.seed,
                        accepted,
                        stored,
                        dead_letters,
                        lost,
                        doubled,
                    }
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_invariant_shows_in_the_table_and_in_the_file() {
        let mut audit = Audit { accepted: 10, lost: 1, ..Audit::default() };
        audit.problem(Invariant::AcceptedOnce, || "event 3 of request 7 is lost".into());
        let outcome = Outcome { fault: "nothing".into(), audit, seen: vec!["calm".into()], seconds: 3 };
        assert!(!outcome.held());
        let line = outcome.line();
        assert!(line.contains("FAIL") && line.contains("event 3 of request 7"), "{line}");
        let report = Report { seed: 9, outcomes: vec![outcome] };
        assert!(!report.held());
        let json = serde_json::to_value(report.cells()).unwrap();
        assert_eq!(json[0]["invariant"], "accepted_once");
        assert_eq!((&json[0]["result"], &json[1]["result"]), (&"failed".into(), &"held".into()));
        assert_eq!((&json[0]["lost"], &json[0]["seed"]), (&1.into(), &9.into()));
    }
}
