//! A pipeline's stages, compiled once and run over each line.
//!
//! ```text
//!  line as sent ─► fields ─► stage ─► stage ─► … ─► line to be stored ─► event
//! ```
//! The outcome is a line again. It is what the spool and the archive hold, so whoever reads a line
//! later needs no pipeline, and finds nothing that was redacted.

use std::borrow::Cow;
use std::collections::HashSet;

use crds::stage::{OnFailure, Stage};

use crate::line::{Line, Node, Path};
use crate::matching::Matcher;
use crate::parse::Parser;
use crate::patterns::Problem;
use crate::redact::Redactor;
use crate::sample::Sampler;
use crate::{Error, Event, WITHHELD};

/// Most stages of a pipeline.
pub const MAX_STAGES: usize = 32;
/// Most regular expressions of a pipeline.
pub const MAX_PATTERNS: usize = 64;
/// Most bytes of all stages as JSON: they travel in a processor's environment, where one variable
/// holds 128 KiB.
pub const MAX_SPEC_BYTES: usize = 64 * 1024;
/// What a line may grow by, besides to twice its length: constants, and names of fields. It bounds
/// what an entry of the queue becomes.
pub const MAX_GROWTH: usize = 2 * 1024;

/// Compiled stages.
#[derive(Debug)]
pub struct Pipeline {
    stages: Vec<Step>,
    redacts: bool,
}

#[derive(Debug)]
struct Step {
    name: String,
    matcher: Option<Matcher>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Parse(Parser),
    Redact(Redactor),
    Drop,
    Sample(Sampler),
    Enrich { set: Vec<(Path, String)>, overwrite: bool },
}

/// Why stages can't be run, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct CompileError {
    /// Stable, for programs.
    pub code: &'static str,
    /// The stage: its number, from 1 on, and its name.
    pub place: String,
    /// What is wrong with it, where, and what to do.
    pub message: String,
}

/// What the stages make of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// An event.
    Event(Event),
    /// Nothing: this stage dropped it.
    Dropped {
        /// The stage's name.
        stage: String,
    },
}

/// The line that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten<'a> {
    /// This one; borrowed where it is the line as sent.
    Line(Cow<'a, [u8]>),
    /// None: this stage dropped it.
    Dropped {
        /// The stage's name.
        stage: &'a str,
    },
}

impl Pipeline {
    /// Compiles stages.
    pub fn compile(stages: &[Stage]) -> Result<Self, CompileError> {
        let of_all = |code, message| CompileError { code, place: "spec.stages".to_owned(), message };
        let bytes = serde_json::to_vec(stages).map_or(0, |json| json.len());
        if stages.len() > MAX_STAGES {
            return Err(of_all("too_many_stages", format!("at most {MAX_STAGES} stages")));
        }
        if bytes > MAX_SPEC_BYTES {
            let message = format!("{bytes} bytes as JSON, and at most {MAX_SPEC_BYTES}: shorten lists and patterns");
            return Err(of_all("stages_too_large", message));
        }
        if stages.iter().map(patterns).sum::<usize>() > MAX_PATTERNS {
            let message = format!("at most {MAX_PATTERNS} regular expressions: join some with `|`");
            return Err(of_all("too_many_patterns", message));
        }
        let mut names = HashSet::new();
        let mut compiled = Vec::with_capacity(stages.len());
        for (at, stage) in stages.iter().enumerate() {
            let failed = |problem: Problem| CompileError {
                code: problem.code,
                place: format!("spec.stages[{at}] `{}`", stage.name),
                message: problem.message,
            };
            if !names.insert(&stage.name) {
                let message = "an earlier stage has this name: names are unique".to_owned();
                return Err(failed(Problem { code: "duplicate_stage", message }));
            }
            compiled.push(Step::compile(stage).map_err(failed)?);
        }
        let redacts = compiled.iter().any(|step| matches!(step.work, Work::Redact(_)));
        Ok(Self { stages: compiled, redacts })
    }

    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether some stage redacts: then nothing may be stored that it did not see.
    pub fn redacts(&self) -> bool {
        self.redacts
    }

    /// What the stages make of a line that was accepted at `accepted_at`, in microseconds since 1970. `id` is
    /// the event's: samples go by it.
    pub fn apply(&self, raw: &[u8], accepted_at: i64, id: u128) -> Result<Outcome, Error> {
        match self.rewrite(raw, accepted_at, id) {
            Rewritten::Dropped { stage } => Ok(Outcome::Dropped { stage: stage.to_owned() }),
            Rewritten::Line(line) => crate::event(&line, accepted_at).map(Outcome::Event),
        }
    }

    /// The line that is stored instead of this one. One that is no JSON object is left to be a dead letter.
    pub fn rewrite<'a>(&'a self, raw: &'a [u8], accepted_at: i64, id: u128) -> Rewritten<'a> {
        let Ok(mut line) = Line::read(raw) else { return Rewritten::Line(self.conceal(raw)) };
        let mut changed = false;
        for step in &self.stages {
            if step.matcher.as_ref().is_some_and(|matcher| !matcher.holds(&line)) {
                continue;
            }
            let dropped = match &step.work {
                Work::Parse(parser) => {
                    let parsed = parser.apply(&mut line, accepted_at);
                    changed |= parsed;
                    !parsed && parser.on_failure == OnFailure::Drop
                }
                Work::Redact(redactor) => {
                    changed |= redactor.apply(&mut line);
                    false
                }
                Work::Drop => true,
                Work::Sample(sampler) => !sampler.keeps(&line, id),
                Work::Enrich { set, overwrite } => {
                    changed |= enrich(&mut line, set, *overwrite);
                    false
                }
            };
            if dropped {
                return Rewritten::Dropped { stage: &step.name };
            }
        }
        if !changed {
            return Rewritten::Line(Cow::Borrowed(raw));
        }
        match line.written() {
            bytes if bytes.len() <= 2 * raw.len() + MAX_GROWTH => Rewritten::Line(Cow::Owned(bytes)),
            _ => Rewritten::Line(self.unprocessed(raw)),
        }
    }

    /// What is stored of a line that the stages can't process: the line as sent, or, where they redact,
    /// no more than its length.
    pub fn unprocessed<'a>(&self, raw: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.redacts {
            return Cow::Borrowed(raw);
        }
        Cow::Owned(format!("{WITHHELD}{} bytes that the stages could not redact", raw.len()).into_bytes())
    }

    /// What is stored of a line that is no JSON object, with everything redacted that is found in it as
    /// text, whatever events and fields the stages concern. Where whole fields are redacted, nothing but
    /// its length: fields can't be told in it.
    pub fn conceal<'a>(&self, raw: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.redacts {
            return Cow::Borrowed(raw);
        }
        let redactors = self.stages.iter().filter_map(|step| match &step.work {
            Work::Redact(redactor) => Some(redactor),
            _ => None,
        });
        let text = String::from_utf8_lossy(raw).into_owned();
        let concealed = redactors.into_iter().try_fold(text, |text, redactor| redactor.conceal(&text));
        match concealed {
            // A line of no length is one that was dropped.
            Some(text) if !text.is_empty() && text.len() <= 2 * raw.len() + MAX_GROWTH => Cow::Owned(text.into_bytes()),
            _ => self.unprocessed(raw),
        }
    }
}

impl Step {
    fn compile(stage: &Stage) -> Result<Self, Problem> {
        let matcher = stage.match_.as_ref().map(Matcher::compile).transpose()?;
        let work = match (&stage.parse, &stage.redact, &stage.drop, &stage.sample, &stage.enrich) {
            (Some(parse), None, None, None, None) => Work::Parse(Parser::compile(parse)?),
            (None, Some(redact), None, None, None) => Work::Redact(Redactor::compile(redact)?),
            (None, None, Some(_), None, None) => Work::Drop,
            (None, None, None, Some(sample), None) => Work::Sample(Sampler::compile(&stage.name, sample)?),
            (None, None, None, None, Some(enrich)) => Work::Enrich {
                set: enrich.set.iter().map(|(name, text)| (Path::new(name), text.0.clone())).collect(),
                overwrite: enrich.overwrite,
            },
            _ => {
                let message = "give exactly one of parse, redact, drop, sample, enrich".to_owned();
                return Err(Problem { code: "not_one_kind", message });
            }
        };
        Ok(Self { name: stage.name.clone(), matcher, work })
    }
}

fn enrich<'a>(line: &mut Line<'a>, set: &'a [(Path, String)], overwrite: bool) -> bool {
    let mut changed = false;
    for (path, text) in set {
        if overwrite || line.get(path).is_none() {
            line.set(path, Node::string(text));
            changed = true;
        }
    }
    changed
}

/// Regular expressions of a stage.
fn patterns(stage: &Stage) -> usize {
    let of_match = stage.match_.iter().flat_map(|m| &m.fields).filter(|field| field.matches.is_some()).count();
    let of_parse = stage.parse.iter().filter(|parse| parse.pattern.is_some()).count();
    of_match + of_parse + stage.redact.as_ref().map_or(0, |redact| redact.patterns.len())
}

#[cfg(test)]
mod tests;
